"""The order of play, and that one contender's failure is its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.catalogue import ContenderFile, Interpreter, contenders, workloads
from benchmarks.harness.claims import CLAIMS
from benchmarks.harness.environments import EnvironmentFailedError, environment
from benchmarks.harness.runner import Plan

from .support import plan_for, played


def test_contenders_take_turns_round_by_round(here: Interpreter) -> None:
    steps = plan_for(here, "selects", rounds=2).steps()
    assert [(step.round, step.contender) for step in steps] == [
        (1, "floor"),
        (1, "this_pool"),
        (2, "floor"),
        (2, "this_pool"),
    ]


def test_those_who_are_neck_and_neck_go_on_alone_in_the_first_lane(here: Interpreter) -> None:
    names = ("floor", "asqlite_pool", "this_pool")
    plan = replace(plan_for(here, "selects", None, *names, close_rounds=3), loops=["asyncio", "uvloop"])
    assert [(step.round, step.contender) for step in plan.steps_of(here, "asyncio")] == [
        *((1, name) for name in names),
        (2, "floor"),
        (2, "this_pool"),
        (3, "floor"),
        (3, "this_pool"),
    ]
    assert [(step.round, step.contender) for step in plan.steps_of(here, "uvloop")] == [(1, name) for name in names]


def test_other_pythons_and_loops_play_only_what_claims_compare_and_fewer_rounds(here: Interpreter) -> None:
    other = Interpreter("3.99", here.executable)
    plan = Plan(contenders(), workloads(), [here, other], ["asyncio", "uvloop"], rounds=2, effort=1)
    assert list(plan.lanes()) == [(here, "asyncio"), (here, "uvloop"), (other, "asyncio")]
    assert {step.workload for step in plan.steps_of(here, "asyncio")} == set(workloads())
    compared = {each for claim in CLAIMS for each in claim.compared()}
    for lane in ((here, "uvloop"), (other, "asyncio")):
        steps = plan.steps_of(*lane)
        assert {(step.workload, step.named, step.contender) for step in steps} == compared
        assert {step.round for step in steps} == {1}


def test_a_workload_with_threads_is_played_in_every_regime_and_others_in_none(here: Interpreter) -> None:
    plan = plan_for(here, "selects", None, "floor", regimes=["one core", "two cores"])
    assert [step.named for step in plan.steps()] == ["5 connections, one core", "5 connections, two cores"]
    plan = plan_for(here, "borrow", ["idle"], "floor", regimes=["one core", "two cores"])
    assert [step.named for step in plan.steps()] == ["idle"]


async def test_a_warm_process_plays_all_its_rounds(data: Mapping[str, Any], here: Interpreter) -> None:
    results = await played(plan_for(here, "selects", None, "floor", rounds=3), data)
    assert [each.round for each in results.records if each.figures] == [1, 2, 3]


async def test_what_a_contender_ran_on_is_kept(data: Mapping[str, Any], here: Interpreter) -> None:
    results = await played(plan_for(here, "selects", None, "floor"), data)
    about = results.about["workers"][f"{here.version}, asyncio"]["floor"]
    assert about["python"].startswith(here.version)
    assert about["packages"]["aiosqlite"]


async def test_a_contender_without_its_library_fails_alone(data: Mapping[str, Any], here: Interpreter) -> None:
    results = await played(plan_for(here, "selects", None, "asqlite_pool", "floor"), data)
    (failure,) = results.failures()
    assert failure.contender == "asqlite_pool"
    assert "No module named 'asqlite'" in (failure.error or "")
    assert [each.contender for each in results.records if each.figures] == ["floor"]


async def test_a_failed_contender_sits_out_the_rest_of_the_case(data: Mapping[str, Any], here: Interpreter) -> None:
    results = await played(plan_for(here, "selects", None, "asqlite_pool", "floor", rounds=3), data)
    assert [each.round for each in results.failures()] == [1]
    assert len(results.records) == 4


async def test_a_request_that_raises_fails_the_round_and_not_the_process(here: Interpreter, tmp_path: Path) -> None:
    missing = {"database": str(tmp_path / "none" / "no.db"), "users": 10, "posts": 10}
    results = await played(plan_for(here, "pages", None, "floor"), missing)
    assert [each.case for each in results.failures()] == ["5 connections, two cores", "100 connections, two cores"]
    assert all("unable to open database file" in (each.error or "") for each in results.failures())


async def test_a_request_that_raises_is_named_in_the_last_line(here: Interpreter, tmp_path: Path) -> None:
    empty = {"database": str(tmp_path / "empty.db"), "users": 10, "posts": 10}
    results = await played(plan_for(here, "selects", None, "floor"), empty)
    lines = [(each.error or "").strip().splitlines()[-1] for each in results.failures()]
    assert lines == ["sqlite3.OperationalError: no such table: users"]


@pytest.mark.parametrize(
    ("program", "limit", "told"),
    [
        ("import sys; sys.exit('out of luck')", 60.0, "ended with exit code 1:\nout of luck"),
        ("import time; time.sleep(60)", 1.0, "no answer within 1 s"),
    ],
)
async def test_a_process_that_dies_or_hangs_fails_alone(
    program: str, limit: float, told: str, data: Mapping[str, Any], here: Interpreter, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}"\n', encoding="utf-8")
    python.chmod(0o755)
    results = await played(plan_for(here, "selects", None, "floor", limit=limit), data, lambda *_: python)
    assert [each.error for each in results.failures()] == [told]


async def test_an_environment_that_cannot_be_made_fails_alone(data: Mapping[str, Any], here: Interpreter) -> None:
    def make(contender: ContenderFile, python: Interpreter) -> Path:
        if contender.name == "floor":
            raise EnvironmentFailedError("no such package")
        return Path(sys.executable)

    results = await played(plan_for(here, "selects"), data, make)
    assert [(each.contender, each.error) for each in results.failures()] == [
        ("floor", "its environment could not be made: no such package")
    ]
    assert [each.contender for each in results.records if each.figures] == ["this_pool"]


def test_pip_says_why_an_environment_cannot_be_made(here: Interpreter) -> None:
    impossible = ContenderFile("impossible", "", "", ("aiosqlite==0.0.0.dev0",), None)
    with pytest.raises(EnvironmentFailedError, match=r"aiosqlite==0\.0\.0\.dev0"):
        environment(impossible, here)
