"""Read the statements of pools from the JSON of a debug page, and sort them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from aiosqlitepool import StatementStats

from .page import number, read_json, text

__all__ = ["SORTS", "PoolStatements", "Reading", "read"]

# What `--sort` can name, and the field that it means; the largest comes first.
SORTS = {"total": "run_total", "mean": "run_mean", "p99": "run_p99", "calls": "calls", "rows": "rows"}


@dataclass(frozen=True)
class PoolStatements:
    """The statements of one pool, the longest total run time first, and how many others it has forgotten."""

    pool: str
    statements: tuple[StatementStats, ...]
    forgotten: int

    def sorted_by(self, sort: str) -> tuple[StatementStats, ...]:
        """Return the statements sorted by a key of `SORTS`, the largest first."""
        return tuple(sorted(self.statements, key=attrgetter(SORTS[sort]), reverse=True))


@dataclass(frozen=True)
class Reading:
    """The statements of every pool of a page at one moment, `at` by `time.monotonic()` and `now` as a Unix time."""

    at: float
    now: float
    pools: tuple[PoolStatements, ...]


def read(url: str, clock: Callable[[], float] = time.monotonic) -> Reading:
    """Read the statements from the page at `url`. Raises `EndpointError` if that fails or is no such page."""
    return read_json(
        url,
        "statements",
        lambda data: Reading(clock(), number(data["at"]), tuple(_pool(pool) for pool in data["pools"])),
    )


# -- what another program has sent


def _pool(data: Any) -> PoolStatements:
    rows = tuple(_row(row) for row in data["statements"])
    return PoolStatements(text(data["pool"]), rows, int(number(data["statements_forgotten"])))


def _row(data: Any) -> StatementStats:
    return StatementStats(**{name: kind(data[name]) for name, kind in _KINDS.items()})


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(text(each) for each in value)


_KINDS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("statement", "operation"), text),
    **dict.fromkeys(("calls", "errors", "rows", "rows_changed", "inline", "retried"), number),
    **dict.fromkeys(("run_total", "run_mean", "run_max", "run_p99"), number),
    **dict.fromkeys(("wait_total", "wait_mean", "wait_max", "wait_p99"), number),
    **dict.fromkeys(("first_seen", "last_seen"), number),
    **dict.fromkeys(("labels", "plan"), _texts),
}
