"""A statement to show."""

from __future__ import annotations

from typing import Any

from aiosqlitepool import StatementStats

__all__ = ["row"]


def row(statement: str, **changes: Any) -> StatementStats:
    """One that was called once, a minute after 1970 began."""
    figures: dict[str, Any] = {
        **dict.fromkeys(("calls", "rows"), 1),
        **dict.fromkeys(("errors", "rows_changed", "inline", "retried"), 0),
        **dict.fromkeys(("run_total", "run_mean", "run_max", "run_p99"), 0.25),
        **dict.fromkeys(("wait_total", "wait_mean", "wait_max", "wait_p99"), 0.001),
        **dict.fromkeys(("first_seen", "last_seen"), 60.0),
    }
    return StatementStats(statement=statement, **{"operation": "SELECT", "labels": (), **figures, **changes})
