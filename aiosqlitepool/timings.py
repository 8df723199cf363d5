"""Batches of timings: the cheap channel beside the events, for subscribers that count. Exported by `events`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

from .copying import CapturedContext

__all__ = ["AcquirePath", "PoolTimings", "SlowWait", "StatementKind", "StatementPlace", "StatementTimings"]

AcquirePath = Literal["idle", "new", "queued"]


@dataclass(slots=True)
class SlowWait:
    """One slow acquire in a batch. `context` is the caller's context when it acquired, for a trace or an exemplar.

    A deep copy or a pickle has `None` instead.
    """

    path: AcquirePath
    wait_time: float
    context: CapturedContext = field(repr=False, compare=False)


@dataclass(slots=True)
class PoolTimings:
    """Wait and use times since the previous batch. `PoolEvent` subscribers do not receive it: they receive the events.

    Each acquire is in exactly one of three places: the count `immediate` (an idle connection, acquired without a
    wait), `waits` by path, or `slow` if it took the pool's `slow_acquire` seconds. `uses` holds how long each released
    connection was in use. Emitted after every 256 uses, and by `flush_timings()` in the thread that calls it; one batch
    at a time.
    """

    name: ClassVar[str] = "timings"
    pool: str
    immediate: int
    waits: Mapping[AcquirePath, Sequence[float]]
    slow: Sequence[SlowWait]
    uses: Sequence[float]


# Where a statement ran. "retried" is no run of its own: it began in the loop, was too long, and runs again in a thread.
StatementPlace = Literal["inline", "thread", "retried"]


class StatementKind(NamedTuple):
    """What statements of one batch have in common. `error` is that of `StatementSlow`: the name of an exception."""

    operation: str
    summary: str
    error: str | None
    place: StatementPlace = "thread"


@dataclass(slots=True)
class StatementTimings:
    """Times of statements, since the previous batch. `PoolEvent` does not include it.

    `runs` has one duration for each executed statement, by kind. Fetching more of its rows is not included; reads that
    were too long for the loop are, with the place "retried", and again with "thread". Emitted
    after every 256 statements, in a worker thread, and by `flush_timings()` in the thread that calls it; one batch at a
    time.
    """

    name: ClassVar[str] = "statement_timings"
    pool: str
    runs: Mapping[StatementKind, Sequence[float]]

    def executed(self) -> Iterator[tuple[StatementKind, Sequence[float]]]:
        """Yield the kinds and durations of statements that ran to their end."""
        return ((kind, runs) for kind, runs in self.runs.items() if kind.place != "retried")
