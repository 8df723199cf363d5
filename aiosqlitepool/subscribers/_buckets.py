"""The bucket bounds of the histograms, in seconds, and how arguments that replace them are checked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

from ._metrics import CREATE_TIME, TRANSACTION_TIME, TRANSACTION_WAIT, USE_TIME, WAIT_TIME, Metric

__all__ = [
    "CREATE_BUCKETS",
    "TRANSACTION_BUCKETS",
    "USE_BUCKETS",
    "WAIT_BUCKETS",
    "Buckets",
    "checked_bounds",
    "checked_buckets",
]

# The bounds of each histogram's buckets.
Buckets = dict[Metric, tuple[float, ...]]

# fmt: off
WAIT_BUCKETS = (
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)
CREATE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
USE_BUCKETS = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
TRANSACTION_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)
# fmt: on


def checked_bounds(
    wait: Iterable[float], create: Iterable[float], use: Iterable[float], transaction: Iterable[float]
) -> Buckets:
    """Return the bounds of every histogram. Raises `ValueError` naming the invalid argument."""
    waits = checked_buckets("wait_buckets", wait)
    return {
        WAIT_TIME: waits,
        CREATE_TIME: checked_buckets("create_buckets", create),
        USE_TIME: checked_buckets("use_buckets", use),
        TRANSACTION_TIME: checked_buckets("transaction_buckets", transaction),
        TRANSACTION_WAIT: waits,
    }


def checked_buckets(argument: str, bounds: Iterable[float]) -> tuple[float, ...]:
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
