"""The bucket bounds of the histograms, in seconds, and how arguments that replace them are checked."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from aiosqlitepool.events import SlowWait

__all__ = [
    "CREATE_BUCKETS",
    "STATEMENT_BUCKETS",
    "TRANSACTION_BUCKETS",
    "USE_BUCKETS",
    "WAIT_BUCKETS",
    "Bounds",
    "by_bucket",
    "checked_buckets",
    "exemplars_of",
]

T = TypeVar("T")
Bounds = tuple[float, ...]

# fmt: off
WAIT_BUCKETS = (
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)
CREATE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
USE_BUCKETS = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
TRANSACTION_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)
# A point query takes 10 to 50 µs, a long report seconds.
STATEMENT_BUCKETS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)
# fmt: on


def checked_buckets(argument: str, bounds: Iterable[float]) -> Bounds:
    """Return bucket bounds as floats, without a final infinity. Raises `ValueError` naming an invalid argument."""
    try:
        checked = tuple(float(bound) for bound in bounds)
    except (TypeError, ValueError):
        raise ValueError(f"{argument} must be numbers of seconds, not {bounds!r}") from None
    if checked and checked[-1] == math.inf:
        checked = checked[:-1]
    rising = all(low < high for low, high in itertools.pairwise(checked))
    if not checked or not rising or checked[0] < 0 or not all(map(math.isfinite, checked)):
        raise ValueError(f"{argument} must be finite, 0 or more, and strictly rising, not {bounds!r}")
    return checked


def by_bucket(bounds: Bounds, ordered: Sequence[float], zeros: int = 0) -> Iterator[tuple[int, int]]:
    """Yield each bucket that has observations, and how many: of `ordered`, rising, and of `zeros` times 0 seconds.

    One search for each bucket instead of one for each observation takes half the time, also with the sorting.
    """
    below = 0
    for bucket, bound in enumerate(bounds):
        up_to = bisect_right(ordered, bound, below)
        if number := up_to - below + (0 if bucket else zeros):
            yield bucket, number
        below = up_to
        if below == len(ordered):
            return
    yield len(bounds), len(ordered) - below


def exemplars_of(bounds: Bounds, slow: Sequence[SlowWait], trace_of: Callable[[], T | None]) -> dict[int, T]:
    """Return the last slow wait of each bucket that has a trace: its place in `slow`, and its trace.

    A bucket keeps one exemplar, the last one: those of all others would be replaced at once. `trace_of()` returns the
    trace of the current context, `None` if it has none.
    """
    found: dict[int, T] = {}
    done: set[int] = set()
    for place in reversed(range(len(slow))):
        bucket = bisect_left(bounds, slow[place].wait_time)
        if bucket not in done and (trace := slow[place].context.run(trace_of)) is not None:
            done.add(bucket)
            found[place] = trace
    return found
