"""A snapshot of a pool as frozen values. Plain data: knows nothing of slots, drivers or clocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, Self

from .copying import CapturedContext
from .sql import plan_warnings, summary_of

__all__ = ["Holder", "PoolRole", "PoolStats", "StatementStats", "StatementTable", "Waiter"]

PoolRole = Literal["read", "write"]

# Characters of a statement in a text.
_SHORT: Final = 200


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of one connection. `held` is in seconds, a float.

    `context` is the holder's context when it acquired the connection, captured only while `AcquireSlow` has a
    subscriber; it leads from a waiter's trace to the holder's span. Deep copies and pickles have no context. `ended` is
    true if the task that acquired the connection has ended: it was a helper such as `wait_for(pool.acquire(), 1)`, or
    it forgot to release.
    `coroutine` is the qualified name of the task's coroutine. `waits_for` is the pool for whose connection the task
    waits meanwhile, and `waited` for how many seconds. `statement` is the normalized SQL that runs now, for
    `statement_time` seconds until now, or that ran last, for so many seconds; `statement_runs` says which.
    """

    connection: int
    task: str
    label: str | None
    held: float
    context: CapturedContext | None = field(default=None, repr=False, compare=False)
    ended: bool = False
    coroutine: str | None = None
    waits_for: str | None = None
    waited: float = 0.0
    statement: str | None = None
    statement_time: float = 0.0
    statement_runs: bool = False

    @property
    def who(self) -> str:
        """The task and the label; without a label, the coroutine and the task."""
        if self.label is not None:
            return f"{self.task} [{self.label}]"
        return self.task if self.coroutine is None else f"{self.coroutine} ({self.task})"

    @property
    def summary(self) -> str:
        """The operation and the first table, for example "SELECT orders". Empty without a statement."""
        return "" if self.statement is None else summary_of(self.statement)

    def __str__(self) -> str:
        waits = "" if self.waits_for is None else f" and has waited for {self.waits_for} for {self.waited:.3f} s"
        ended = " (and has ended)" if self.ended else ""
        held = f"has held connection {self.connection} for {self.held:.3f} s"
        return f"{self.who} {held}{self._in_statement()}{waits}{ended}"

    def _in_statement(self) -> str:
        if self.statement is None:
            return ""
        short = self.statement if len(self.statement) <= _SHORT else f"{self.statement[:_SHORT]}..."
        if self.statement_runs:
            return f", {self.statement_time:.3f} s of it in {short}"
        return f", last in {short} for {self.statement_time:.3f} s"


@dataclass(frozen=True, slots=True)
class Waiter:
    """A caller that waits for a connection. `waited` is in seconds, a float."""

    task: str
    label: str | None
    waited: float

    def __str__(self) -> str:
        label = "" if self.label is None else f" [{self.label}]"
        return f"{self.task}{label} has waited for {self.waited:.3f} s"


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A snapshot of a pool. Counts are connections or callers; ages are seconds, floats.

    `used` counts every slot that is neither idle nor vacant: its connection is in use, being opened, checked or reset.
    `used + idle <= max_size` always holds, also when read from another thread. `acquisition_timeout`,
    `max_waiting` and `leak_threshold` are the limits that the pool was made with. `role` is set for the two pools of a
    `SQLiteDatabase`. For the one that writes, `wal_bytes` is the size of the WAL file, `database_bytes` that of the
    database file, and `disk_free` the bytes that its file system has left; the last two are `None` in memory.
    `inline_stall` is the longest time in the last 15 to 30 seconds for which work in the event loop's own thread kept
    it from other work: BEGIN for the one that writes, reads for the one that reads with `inline_reads`.
    """

    pool: str
    state: str
    max_size: int
    min_size: int
    used: int
    idle: int
    waiting: int
    oldest_waiter: float
    oldest_checkout: float
    subscriber_errors: int
    role: PoolRole | None = None
    wal_bytes: int | None = None
    database_bytes: int | None = None
    disk_free: int | None = None
    acquisition_timeout: float | None = None
    max_waiting: int | None = None
    leak_threshold: float | None = None
    inline_stall: float | None = None

    @property
    def size(self) -> int:
        """Slots that have a connection or are about to have one."""
        return self.used + self.idle


@dataclass(frozen=True, slots=True)
class StatementStats:
    """What one pool knows of one statement. Times are seconds, floats; `first_seen` and `last_seen` are Unix times.

    `statement` is normalized: on one line, with `?` for each literal. `run` is the time that SQLite ran it, `wait` the
    time from the call to its beginning. Only `run_total` includes rows that were fetched later. With `inline_reads`,
    `inline` of the calls ran in the event loop's own thread, and `retried` began there, were too long, and ran again in
    a worker thread. `labels` are those of the leases that it came from, at most 8. `plan` is SQLite's query plan of its
    last slow run; "<-- ..." marks what makes it slow.
    """

    statement: str
    operation: str
    calls: int
    errors: int
    rows: int
    rows_changed: int
    run_total: float
    run_mean: float
    run_max: float
    run_p99: float
    wait_total: float
    wait_mean: float
    wait_max: float
    wait_p99: float
    first_seen: float
    last_seen: float
    labels: tuple[str, ...]
    plan: tuple[str, ...] = ()
    inline: int = 0
    retried: int = 0

    @property
    def summary(self) -> str:
        """The operation and the first table, for example "SELECT orders"."""
        return summary_of(self.statement)

    @property
    def plan_warnings(self) -> tuple[str, ...]:
        """What makes the plan slow, for example ("full scan of orders",)."""
        return plan_warnings(self.plan)


class StatementTable(tuple[StatementStats, ...]):
    """The statements of a pool, the longest total run time first. `forgotten` counts those that had to make room."""

    forgotten: int

    def __new__(cls, rows: Iterable[StatementStats], forgotten: int = 0) -> Self:
        """Return a table of these rows."""
        table = super().__new__(cls, rows)
        table.forgotten = forgotten
        return table

    def __getnewargs__(self) -> tuple[tuple[StatementStats, ...], int]:
        return tuple(self), self.forgotten
