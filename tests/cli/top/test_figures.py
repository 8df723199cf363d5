from __future__ import annotations

import math

import pytest

from aiosqlitepool.cli.top.figures import Percentile, Span, figures, percentile
from aiosqlitepool.cli.top.scrape import Scrape
from aiosqlitepool.subscribers._metrics import (
    ACQUIRES,
    COUNT,
    CREATE_TIME,
    MAX,
    ROLLBACKS,
    TIMEOUTS,
    USE_TIME,
    WAIT_TIME,
)

BUCKETS = {0.1: 50.0, 0.5: 90.0, 1.0: 100.0, math.inf: 100.0}


def scraped(at: float, **numbers: float) -> Scrape:
    """A scrape of one pool with these counts of acquires, timeouts, waits up to 0.1 s and waits up to 1 s."""
    queued, timeouts = numbers.get("queued", 0), numbers.get("timeouts", 0)
    short, long = numbers.get("short", 0), numbers.get("long", 0)
    return Scrape(
        at,
        {
            (COUNT, "app.db", "used"): 3,
            (COUNT, "app.db", "idle"): 1,
            (MAX, "app.db", ""): 5,
            (ACQUIRES, "app.db", "queued"): queued,
            (TIMEOUTS, "app.db", ""): timeouts,
            (ROLLBACKS, "app.db", "cursor"): 1,
            (ROLLBACKS, "app.db", "transaction"): 2,
        },
        {
            (WAIT_TIME, "app.db"): {0.1: short, 1.0: short + long, math.inf: short + long},
            (USE_TIME, "app.db"): {0.1: 10, math.inf: 10},
            (CREATE_TIME, "app.db"): {0.1: 2, math.inf: 4},
        },
    )


@pytest.mark.parametrize(
    ("percent", "seconds"), [(50, 0.1), (25, 0.05), (70, 0.3), (90, 0.5), (95, 0.75), (99, 0.95), (100, 1.0)]
)
def test_a_percentile_lies_within_its_bucket_as_prometheus_has_it(percent: float, seconds: float) -> None:
    assert percentile(BUCKETS, percent) == Percentile(pytest.approx(seconds))


def test_a_percentile_beyond_the_last_bound_says_so() -> None:
    assert percentile({0.1: 10.0, math.inf: 100.0}, 99) == Percentile(0.1, beyond=True)


@pytest.mark.parametrize("buckets", [{}, {0.1: 0.0, math.inf: 0.0}])
def test_of_nothing_there_is_no_percentile(buckets: dict[float, float]) -> None:
    assert percentile(buckets, 99) is None


def test_one_scrape_gives_current_levels_and_totals() -> None:
    (pool,) = figures(scraped(10.0, queued=7, timeouts=1, short=100))
    assert (pool.pool, pool.used, pool.idle, pool.max_size, pool.waiting) == ("app.db", 3, 1, 5, 0)
    assert pool.recent is None
    assert (pool.total.queued, pool.total.timeouts, pool.total.rollbacks, pool.total.creates) == (7, 1, 3, 4)
    assert pool.total.wait_p99 == Percentile(pytest.approx(0.099))


def test_two_scrapes_give_the_figures_of_the_time_between() -> None:
    before, now = scraped(10.0, queued=7, short=100), scraped(12.0, queued=11, timeouts=3, short=100, long=10)
    recent = figures(now, before)[0].recent
    assert recent == Span(
        seconds=2.0,
        idle=0,
        new=0,
        queued=4,
        wait_p50=Percentile(pytest.approx(0.55)),
        wait_p99=Percentile(pytest.approx(0.991)),
        hold_p99=None,
        timeouts=3,
        creates=0,
        failures=0,
        rollbacks=0,
    )


def test_a_program_that_was_started_again_counts_from_zero() -> None:
    before, now = scraped(10.0, queued=1000, short=1000), scraped(12.0, queued=5, long=10)
    recent = figures(now, before)[0].recent
    assert recent is not None
    assert recent.queued == 5
    assert recent.wait_p50 == Percentile(pytest.approx(0.55))


def test_a_pool_that_was_not_there_before_is_counted_from_its_beginning() -> None:
    recent = figures(scraped(12.0, queued=5), Scrape(10.0))[0].recent
    assert recent is not None
    assert recent.queued == 5
