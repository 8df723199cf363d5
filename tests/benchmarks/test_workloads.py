"""Every workload runs, in tiny form, with the floor and what is ours, and its figures can be true."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.harness.catalogue import Interpreter, workloads
from benchmarks.harness.results import Record

from .support import plan_for, played

# Cases that would take long, however few the requests.
LARGE = ("20, each its own", "20, one connection", "100,000")


def small_cases(workload: str) -> list[str]:
    return [case for case in workloads()[workload].cases if case not in LARGE]


def players_of(workload: str) -> list[str]:
    """The floor and this pool, or, of those whom the workload invites, those whose libraries are installed here."""
    return [
        name
        for name in workloads()[workload].contenders or ("floor", "this_pool")
        if name in ("floor", "plain_sqlite3") or name.startswith("this_")
    ]


@pytest.mark.parametrize("workload", workloads())
async def test_every_workload_runs_with_those_who_are_installed_here(
    workload: str, data: Mapping[str, Any], here: Interpreter
) -> None:
    cases, players = small_cases(workload), players_of(workload)
    results = await played(plan_for(here, workload, cases, *players), data)
    assert not results.failures()
    assert len(results.records) == len(players) * len(cases)
    for record in results.records:
        assert_sane(record)


def assert_sane(record: Record) -> None:
    workload = workloads()[record.workload]
    if record.figures is None:
        assert record.contender != "this_pool", f"this pool can do all of it: {record.unsuitable}"
        assert record.unsuitable
        return
    figures = record.figures
    assert {figure.name for figure in workload.figures} <= figures.keys()
    assert figures[workload.figures[0].name] > 0
    assert figures.get("errors", 0) == 0
    assert figures.get("stall", 0) >= 0
    if "rate" in figures:
        assert 0 < figures["median"] <= figures["p90"] <= figures["p99"] <= figures["worst"]
        assert record.quantiles == sorted(record.quantiles)
        assert 1000 * record.quantiles[-1] == pytest.approx(figures["worst"])


async def test_no_note_of_a_writer_is_lost_or_written_twice(data: Mapping[str, Any], here: Interpreter) -> None:
    results = await played(plan_for(here, "writers", ["8, each its own", "8, one connection"]), data)
    assert [each.figures["lost"] for each in results.records if each.figures] == [0, 0, 0]


async def test_a_database_writes_one_at_a_time_beside_its_readers(data: Mapping[str, Any], here: Interpreter) -> None:
    databases = ("this_database", "this_database_functions")
    for workload, cases in (("writers", ["8, each its own", "8, one connection"]), ("mix", None)):
        results = await played(plan_for(here, workload, cases, *databases), data)
        assert not results.failures()
        measured = [each for each in results.records if each.figures is not None]
        assert [each.contender for each in measured] == list(databases)
        for each in measured:
            assert_sane(each)
            assert each.figures is not None
            assert each.figures.get("lost", 0) == 0
    assert plan_for(here, "pages", None, *databases).steps() == []


async def test_uvloop_is_a_loop_like_any_other(data: Mapping[str, Any], here: Interpreter) -> None:
    results = await played(plan_for(here, "selects", loops=["uvloop"]), data)
    assert [each.loop for each in results.records if each.figures] == ["uvloop", "uvloop"]


@pytest.mark.parametrize("contender", ["plain_sqlite3", "open_close", "this_pool_prometheus", "this_pool_all"])
async def test_contenders_that_need_nothing_else_do_pages(
    contender: str, data: Mapping[str, Any], here: Interpreter
) -> None:
    results = await played(plan_for(here, "pages", ["5 connections"], contender), data)
    assert not results.failures()
    assert_sane(results.records[0])
