"""The words of a timeout: what the pool looked like when a caller gave up, and what that points to."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import PoolClosedError
from ..events import ErrorInfo
from ..stats import Holder, PoolStats

__all__ = ["closed_while_waiting", "counts", "explain_full", "explain_timeout"]

_SHOWN = 5


def counts(stats: PoolStats) -> str:
    """The pool's levels in words."""
    return f"{stats.used} used, {stats.idle} idle of {stats.max_size}, {stats.waiting} waiting"


def explain_timeout(
    waited: float,
    stats: PoolStats,
    holders: tuple[Holder, ...],
    own: Sequence[int],
    failure: tuple[ErrorInfo, float] | None,
) -> str:
    """Why an acquire timed out. `own` are the connections that the waiting task itself holds.

    `failure` is the last failed attempt to open one, and how many seconds ago that was.
    """
    parts = [f"no connection from pool {stats.pool!r} within {waited:.3f} s ({counts(stats)})"]
    if failure is not None:
        parts.append(f"the last attempt to connect failed {failure[1]:.3f} s ago: {failure[0]}")
    busy = stats.used - len(holders)
    if busy > 0:
        parts.append(f"{busy} of those used {'is' if busy == 1 else 'are'} being opened, checked, reset or handed on")
    if holders:
        rest = len(holders) - _SHOWN
        more = f"; and {rest} more" if rest > 0 else ""
        parts.append("; ".join(map(str, holders[:_SHOWN])) + more)
    if own:
        numbers = ", ".join(map(str, own))
        parts.append(
            f"the waiting task itself holds {'connection' if len(own) == 1 else 'connections'} {numbers}: "
            "a task that needs a second connection while it keeps its first can deadlock with itself"
        )
    return ". ".join(part[0].upper() + part[1:] if number else part for number, part in enumerate(parts)) + "."


def explain_full(stats: PoolStats, max_waiting: int) -> str:
    """Why an acquire was turned away."""
    return f"pool {stats.pool!r} has max_waiting={max_waiting} callers waiting already ({counts(stats)})"


def closed_while_waiting(pool: str | None) -> PoolClosedError:
    """What those who wait get when their pool closes."""
    return PoolClosedError(f"pool {pool!r} closed while its caller waited")
