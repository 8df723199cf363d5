"""Compute figures from two scrapes: current levels, the counts and percentiles between the two, and totals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ...subscribers._metrics import (
    ACQUIRES,
    COUNT,
    CREATE_FAILURES,
    CREATE_TIME,
    HEALTH_FAILURES,
    MAX,
    OLDEST_CHECKOUT,
    OLDEST_WAITER,
    PENDING_REQUESTS,
    ROLLBACKS,
    TIMEOUTS,
    USE_TIME,
    WAIT_TIME,
    Metric,
)
from .scrape import Scrape

__all__ = ["Held", "Percentile", "PoolFigures", "Span", "figures", "percentile"]


class Percentile(NamedTuple):
    """A time in seconds. If `beyond` is true, the percentile is in the last bucket, above this time."""

    seconds: float
    beyond: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """Counts and percentiles of a pool in a span of time. A percentile is `None` without measurements.

    `seconds` is the length of the span, or `None` for the time since the program started.
    """

    seconds: float | None
    idle: float
    new: float
    queued: float
    wait_p50: Percentile | None
    wait_p99: Percentile | None
    hold_p99: Percentile | None
    timeouts: float
    creates: float
    failures: float
    rollbacks: float


class Held(NamedTuple):
    """A holder of a connection, for `held` seconds. `suspected` is true from the leak threshold of its pool on."""

    connection: int
    who: str
    held: float
    statement: str | None
    suspected: bool


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """One pool: its current levels, its figures between the two scrapes (`None` after the first), and its totals.

    Ages are in seconds. Only a debug page has the holders, the longest first.
    """

    pool: str
    used: int
    idle: int
    max_size: int
    waiting: int
    oldest_waiter: float
    oldest_checkout: float
    recent: Span | None
    total: Span
    holders: tuple[Held, ...] = ()


def figures(now: Scrape, before: Scrape | None = None) -> list[PoolFigures]:
    """Return the figures of each pool in the latest scrape, sorted by name."""
    return [_pool(now, before, pool) for pool in now.pools]


def _pool(now: Scrape, before: Scrape | None, pool: str) -> PoolFigures:
    return PoolFigures(
        pool,
        int(now.number(COUNT, pool, "used")),
        int(now.number(COUNT, pool, "idle")),
        int(now.number(MAX, pool)),
        int(now.number(PENDING_REQUESTS, pool)),
        now.number(OLDEST_WAITER, pool),
        now.number(OLDEST_CHECKOUT, pool),
        None if before is None or now.at <= before.at else _span(now, before, pool, now.at - before.at),
        _span(now, Scrape(now.at), pool, None),
    )


def _span(now: Scrape, before: Scrape, pool: str, seconds: float | None) -> Span:
    def increase(metric: Metric, value: str | None = None) -> float:
        return _increase(now.number(metric, pool, value), before.number(metric, pool, value))

    waits, uses, creates = (
        _increases(now.buckets.get((metric, pool), {}), before.buckets.get((metric, pool), {}))
        for metric in (WAIT_TIME, USE_TIME, CREATE_TIME)
    )
    return Span(
        seconds,
        idle=increase(ACQUIRES, "idle"),
        new=increase(ACQUIRES, "new"),
        queued=increase(ACQUIRES, "queued"),
        wait_p50=percentile(waits, 50),
        wait_p99=percentile(waits, 99),
        hold_p99=percentile(uses, 99),
        timeouts=increase(TIMEOUTS),
        creates=creates.get(math.inf, 0.0),
        failures=increase(CREATE_FAILURES) + increase(HEALTH_FAILURES),
        rollbacks=increase(ROLLBACKS),
    )


def _increase(now: float, before: float) -> float:
    # A counter that decreased was reset: the program was restarted.
    return now - before if now >= before else now


def _increases(now: Mapping[float, float], before: Mapping[float, float]) -> dict[float, float]:
    is_reset = any(count < before.get(bound, 0.0) for bound, count in now.items())
    return {bound: count - (0.0 if is_reset else before.get(bound, 0.0)) for bound, count in now.items()}


def percentile(buckets: Mapping[float, float], percent: float) -> Percentile | None:
    """Return a percentile, interpolated as by Prometheus' `histogram_quantile`, or `None` without observations.

    `buckets` maps upper bounds to cumulative counts.
    """
    rising = sorted(buckets.items())
    if not rising or rising[-1][1] <= 0:
        return None
    rank = percent / 100 * rising[-1][1]
    buckets_from = itertools.pairwise([(0.0, 0.0), *rising])
    (low, below), (high, count) = next(bucket for bucket in buckets_from if bucket[1][1] >= rank)
    if math.isinf(high):
        return Percentile(low, beyond=True)
    return Percentile(low + (high - low) * (rank - below) / (count - below) if count > below else high)
