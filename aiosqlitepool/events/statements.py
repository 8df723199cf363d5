"""Statements: those that were slow, and each one for subscribers that ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..sql import plan_warnings
from .base import PoolEvent

__all__ = ["StatementExecuted", "StatementSlow"]


@dataclass(slots=True)
class StatementSlow(PoolEvent):
    """A statement of an aiosqlite connection ran for at least the pool's `slow_statement` seconds, or fetched for that
    long. Emitted in a copy of the context of the caller that sent it, before the caller continues.

    `statement` is normalized SQL without values, `summary` its operation and table: "SELECT orders". `run_time` is the
    time in the worker thread, `wait_time` the time from the call to its beginning, `ended_at` the Unix time of its end.
    `error` is the name of the exception that it raised, or "cancelled" if its caller was cancelled. `plan` has the
    lines of SQLite's query plan, at most a second old, and none for statements without a plan; "<-- ..." marks what
    makes it slow.
    """

    name: ClassVar[str] = "statement_slow"
    connection: int
    statement: str
    operation: str
    summary: str
    wait_time: float
    run_time: float
    ended_at: float
    rows: int
    rows_changed: int
    error: str | None = None
    label: str | None = None
    plan: tuple[str, ...] = ()

    @property
    def plan_warnings(self) -> tuple[str, ...]:
        """What makes the plan slow, for example ("full scan of orders",)."""
        return plan_warnings(self.plan)


@dataclass(slots=True)
class StatementExecuted:
    """A statement of an aiosqlite connection ran. Fields and context are those of `StatementSlow`, which was emitted
    directly before if `is_slow`.

    Only for subscribers of this very type: `PoolEvent` does not include it, because it costs more than a short
    statement itself. Fetching more rows of a statement is no execution.
    """

    name: ClassVar[str] = "statement_execute"
    pool: str
    connection: int
    statement: str
    operation: str
    summary: str
    wait_time: float
    run_time: float
    ended_at: float
    rows: int
    rows_changed: int
    error: str | None = None
    label: str | None = None
    is_slow: bool = False
