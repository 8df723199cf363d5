from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.harness.catalogue import Interpreter, workloads
from benchmarks.harness.report import TEMPLATE, report, summary, write_report
from benchmarks.harness.results import Results

from .support import WHERE, plan_for, played, rates, record

ABOUT = {**WHERE, "scale": 1.0, "rounds": 3, "effort": 1.0}


@pytest.fixture
def results() -> Results:
    return Results(
        ABOUT,
        [
            *rates("floor", 100, 110, 120),
            *rates("this_pool", 90, 110, 96),
            record("asqlite_pool", error="Traceback\nOSError: no such luck"),
            record("plain_sqlite3", unsuitable="is elsewhere"),
        ],
    )


def row_of(text: str, beginning: str) -> str:
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {beginning} |")]
    return row


def test_a_table_shows_medians_ratios_and_their_spread(results: Results) -> None:
    text = report(results)
    assert "| this pool | 96 (90–110) | 0.90 (0.80–1.00) | 1.00 |" in text  # noqa: RUF001


def test_a_contender_that_failed_is_named_with_the_reason(results: Results) -> None:
    text = report(results)
    assert "| failed |" in row_of(text, "asqlite's pool")
    assert (
        "- asqlite's pool, in selects, 5 connections, two cores (CPython 3.11, asyncio): `OSError: no such luck`"
        in text
    )


def test_a_contender_that_cannot_take_part_says_why(results: Results) -> None:
    assert "| n/a: is elsewhere |" in row_of(report(results), "plain sqlite3, one thread (the limit)")


def test_a_note_stands_beside_what_was_measured(results: Results) -> None:
    results.about = {**ABOUT, "notes": ["Writers are of last year."]}
    assert "\n\nWriters are of last year.\n\n" in report(results)


def test_what_must_be_reached_is_judged(results: Results) -> None:
    row = row_of(report(results), "SELECTs on two cores, requests/s: this pool / floor")
    assert row.endswith("| ≥ 0.95 | 0.90 (0.80–1.00) | **no** |")  # noqa: RUF001


def test_a_workload_that_was_not_measured_says_so(results: Results) -> None:
    assert report(results).count("Not measured in this run.") == len(workloads()) - 1


def test_a_table_names_its_regime(results: Results) -> None:
    assert "\n\n**5 connections, two cores**\n\n" in report(results)


def test_a_regime_that_could_not_be_pinned_is_named_with_the_reason(results: Results) -> None:
    results.about = {**ABOUT, "regimes": {"one core": "pinned", "two cores": "1 core is available, not 2"}}
    text = report(results)
    assert "“two cores” was not pinned: 1 core is available, not 2." in text
    assert "“one core” was not pinned" not in text


def test_a_case_that_only_one_lane_played_is_not_shown_among_the_lanes(results: Results) -> None:
    uvloop = [replace(each, loop="uvloop") for each in rates("floor", 200)]
    results.records += [*uvloop, *(replace(each, case="5 connections, one core") for each in rates("floor", 100))]
    text = report(results).partition("## Other Pythons, other loops")[2]
    assert "5 connections, two cores: requests/s" in text
    assert "one core" not in text


def test_a_look_shows_only_what_was_measured(results: Results) -> None:
    text = summary(results)
    assert "## 10,000 SELECTs across 5 workers" in text
    assert "Not measured" not in text
    assert "OSError: no such luck" in text


def test_the_template_has_words_for_every_workload() -> None:
    text = TEMPLATE.read_text(encoding="utf-8")
    assert [name for name in workloads() if f"\n{{{{ {name} }}}}\n" not in text] == []
    assert text.count("**What it shows.**") == text.count("**Where this pool loses, and why.**") == len(workloads())


def test_pictures_are_svg_that_does_not_change_by_itself(results: Results, tmp_path: Path) -> None:
    for folder in ("one", "other"):
        write_report(results, tmp_path / folder)
    (picture,) = sorted((tmp_path / "one" / "pictures").iterdir())
    assert picture.name == "selects-5-connections-two-cores.svg"
    assert "](pictures/selects-5-connections-two-cores.svg)" in (tmp_path / "one" / "RESULTS.md").read_text(
        encoding="utf-8"
    )
    assert ElementTree.parse(picture).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert picture.read_bytes() == (tmp_path / "other" / "pictures" / picture.name).read_bytes()


async def test_a_report_is_made_of_a_real_result(data: Mapping[str, Any], here: Interpreter, tmp_path: Path) -> None:
    results = await played(plan_for(here, "mix", rounds=2), data)
    results.save(tmp_path / "some.json")
    text = write_report(Results.load(tmp_path / "some.json"), tmp_path).read_text(encoding="utf-8")
    assert row_of(text, "this pool").count("|") == row_of(text, "kept open, no pool (the floor)").count("|")
    assert "{{" not in text
