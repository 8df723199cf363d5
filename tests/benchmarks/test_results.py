from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.harness.claims import CLAIMS, Claim
from benchmarks.harness.results import Results, Spread

from .support import FIVE, LANE, rates, record


def ratio(results: Results, contender: str = "this_pool", to: str = "floor") -> Spread | None:
    return results.ratio(LANE, "selects", FIVE, "rate", contender, to)


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine was slow in the second round, for both alike.
    results = Results({}, [*rates("floor", 100, 10, 100), *rates("this_pool", 90, 9, 95)])
    assert ratio(results) == Spread(median=0.9, least=0.9, most=0.95)


def test_a_round_that_one_of_them_missed_is_no_ratio() -> None:
    results = Results({}, [*rates("floor", 100), *rates("this_pool", 90, 500)])
    assert ratio(results) == Spread(0.9, 0.9, 0.9)
    assert ratio(results, to="open_close") is None


def test_a_result_is_the_same_after_saving_and_loading(tmp_path: Path) -> None:
    kinds = [
        *rates("floor", 100.25),
        record("asqlite_pool", error="Traceback\nOSError: no"),
        record("plain_sqlite3", unsuitable="has one connection"),
    ]
    saved = Results({"date": "2026-01-01"}, kinds)
    saved.save(tmp_path / "results" / "some.json")
    loaded = Results.load(tmp_path / "results" / "some.json")
    assert loaded.about == saved.about
    assert loaded.records == saved.records


@pytest.mark.parametrize(
    ("at_least", "bound", "kept"), [(True, 0.9, True), (True, 0.91, False), (False, 0.9, True), (False, 0.89, False)]
)
def test_a_claim_is_kept_by_the_median_of_its_ratio(at_least: bool, bound: float, kept: bool) -> None:
    results = Results({}, [*rates("floor", 100, 100, 100), *rates("this_pool", 80, 90, 200)])
    verdict = Claim("", "selects", FIVE, "rate", "floor", bound, at_least=at_least).judge(results, LANE)
    assert verdict is not None
    assert verdict.kept is kept


def test_nothing_is_said_of_a_claim_that_was_not_measured() -> None:
    assert [claim.judge(Results(), LANE) for claim in CLAIMS] == [None] * len(CLAIMS)
