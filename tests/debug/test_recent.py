from __future__ import annotations

import random

import pytest

from aiosqlitepool.debug.recent import WINDOW, RecentLevel, RecentTimes

from ..support.clock import Clock


@pytest.fixture
def times(clock: Clock) -> RecentTimes:
    return RecentTimes(clock)


def test_nothing_seen_is_all_zeros(times: RecentTimes) -> None:
    assert times.summary() == {"count": 0, "p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}


def test_no_time_at_all_is_zero_and_not_the_first_bucket(times: RecentTimes) -> None:
    times.observe(0.0)
    assert times.summary() == {"count": 1, "p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}


def test_a_percentile_is_never_too_low_and_at_most_a_tenth_too_high(times: RecentTimes) -> None:
    choose = random.Random(1)
    seen = sorted(choose.lognormvariate(-5, 2) for _ in range(1000))
    for seconds in choose.sample(seen, len(seen)):
        times.observe(seconds)
    summary = times.summary()
    for percent in (50, 90, 99):
        exact = seen[percent * 10 - 1]
        assert exact <= summary[f"p{percent}"] <= 1.1 * exact
    assert (summary["count"], summary["max"]) == (1000, seen[-1])


@pytest.mark.parametrize("seconds", [1e-9, 1e-5, 0.5, 999.0, 1e6])
def test_a_percentile_never_exceeds_the_longest(times: RecentTimes, seconds: float) -> None:
    times.observe(seconds)
    assert times.summary()["p99"] <= times.summary()["max"] == seconds


def test_what_is_older_than_a_minute_is_forgotten(times: RecentTimes, clock: Clock) -> None:
    times.observe(9.0)
    clock.advance(WINDOW - 6)
    times.observe(1.0)
    assert times.summary()["count"] == 2
    clock.advance(6)
    assert (times.summary()["count"], times.summary()["max"]) == (1, 1.0)
    clock.advance(WINDOW)
    assert times.summary()["count"] == 0


def test_looking_changes_nothing(times: RecentTimes, clock: Clock) -> None:
    times.observe(1.0)
    clock.advance(7)
    assert times.summary() == times.summary()
    times.observe(2.0)
    assert times.summary()["count"] == 2


def test_after_a_long_silence_it_begins_anew(times: RecentTimes, clock: Clock) -> None:
    times.observe(1.0)
    clock.advance(100 * WINDOW)
    times.observe(2.0)
    assert (times.summary()["count"], times.summary()["max"]) == (1, 2.0)


@pytest.fixture
def level(clock: Clock) -> RecentLevel:
    return RecentLevel(clock)


def test_a_level_is_the_mean_of_what_ran_at_once_in_each_second(level: RecentLevel, clock: Clock) -> None:
    clock.advance(3)
    level.ended(2.5)
    level.ended(0.5)
    assert level.means(()) == (0.0, pytest.approx([0.5, 1.0, 1.5]))


def test_a_level_counts_what_still_runs(level: RecentLevel, clock: Clock) -> None:
    clock.advance(2)
    level.ended(1.0)
    clock.advance(0.25)
    assert level.means([1.75, 0.1]) == (pytest.approx(0.25), pytest.approx([0.5, 2.0]))


def test_a_level_has_no_second_from_before_it_began(level: RecentLevel, clock: Clock) -> None:
    assert level.means([100.0]) == (0.0, [])
    clock.advance(1.5)
    assert level.means([100.0])[1] == [1.0]


def test_a_level_is_of_the_last_minute(level: RecentLevel, clock: Clock) -> None:
    clock.advance(30)
    level.ended(30.0)
    clock.advance(WINDOW - 10)
    assert level.means(())[1] == [1.0] * 10 + [0.0] * 50
    level.ended(1000.0)
    assert level.means(())[1] == [2.0] * 10 + [1.0] * 50
    clock.advance(10 * WINDOW)
    assert level.means(())[1] == [0.0] * 60
