"""Sending requests through a number of workers and noting how long each took. Knows no contender."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterable, Sequence
from statistics import fmean
from time import perf_counter, process_time

from .stall import Stall
from .task import Measured

__all__ = ["PERCENTS", "percentile", "quantiles", "timed", "under_load"]

Request = Callable[[int], Awaitable[object]]

PERCENTS = (*range(0, 90, 2), *range(90, 100), 99.5, 99.9, 100)
"""The percentiles that a result keeps of its latencies."""


async def under_load(
    serve: Request,
    keys: Sequence[int],
    *,
    workers: int,
    settle: Callable[[], object],
    warm_up: int = 2,
    tolerate: bool = False,
) -> Measured:
    """Serve every key by one of `workers` workers, each taking the next when it is free.

    Before that each worker serves `warm_up` keys unmeasured, so that connections are open and statements prepared. What
    `settle` takes, which does what was put off while requests were served, is the figure `later`, in µs for each.
    With `tolerate`, a request that raises is counted in the figure `errors`, and its latency counts as well. `stall` is
    the longest time, in ms, for which the loop kept a callback waiting that was due.
    """
    await _drive(serve, iter(keys[: workers * warm_up]), workers, tolerate=tolerate)
    settle()
    gc.collect()
    with Stall() as stall:
        began, cpu_before = perf_counter(), process_time()
        latencies, errors = await _drive(serve, iter(keys), workers, tolerate=tolerate)
        seconds, cpu = perf_counter() - began, process_time() - cpu_before
    later = timed(settle)
    took = sorted(latencies)
    figures = {
        "rate": (len(took) - errors) / seconds,
        "average": 1000 * fmean(took),
        "median": 1000 * percentile(took, 50),
        "p90": 1000 * percentile(took, 90),
        "p99": 1000 * percentile(took, 99),
        "worst": 1000 * took[-1],
        "stall": 1000 * stall.longest,
        "cpu": 1e6 * cpu / len(took),
        "later": 1e6 * later / len(took),
        "errors": errors,
    }
    return Measured(figures, latencies)


def timed(settle: Callable[[], object]) -> float:
    """How many seconds of processor time it takes to do what was put off; it pauses in between."""
    began = process_time()
    settle()
    return process_time() - began


async def _drive(serve: Request, keys: Iterable[int], workers: int, *, tolerate: bool) -> tuple[list[float], int]:
    latencies: list[float] = []
    errors = 0

    async def work() -> None:
        nonlocal errors
        for key in keys:
            began = perf_counter()
            try:
                await serve(key)
            except Exception:
                if not tolerate:
                    raise
                errors += 1
            latencies.append(perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work())
    return latencies, errors


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The smallest of the values that at least `percent` percent of them do not exceed (nearest rank)."""
    rank = -(-round(10 * percent) * len(ascending) // 1000)  # in integers: 0.9 * 10 may exceed 9
    return ascending[max(rank, 1) - 1]


def quantiles(values: Sequence[float]) -> list[float]:
    """The values at `PERCENTS`: enough to draw their distribution, whatever their number."""
    ascending = sorted(values)
    return [percentile(ascending, percent) for percent in PERCENTS] if ascending else []
