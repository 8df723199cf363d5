"""What happens to the transactions and the WAL of a `SQLiteDatabase`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..kinds import BusyKind, CheckpointResult, TransactionOutcome
from ..stats import Holder
from .base import PoolEvent

__all__ = [
    "BusyRetried",
    "CheckpointBlocked",
    "Checkpointed",
    "TransactionEnded",
]


@dataclass(slots=True)
class TransactionEnded(PoolEvent):
    """A `SQLiteDatabase` transaction ended: "committed", "rolled_back" by its code, or "failed" to begin or commit.

    `wait_time` runs from the call to the (last) `BEGIN`, `duration` from there to the end. `retries` is how often it
    began again because another process held the database.
    """

    name: ClassVar[str] = "transaction"
    outcome: TransactionOutcome
    wait_time: float
    duration: float
    retries: int = 0
    label: str | None = None


@dataclass(slots=True)
class BusyRetried(PoolEvent):
    """The transaction begins again after `pause` seconds, because another process held the lock ("busy"), or because
    another process committed after this transaction began to read ("snapshot").
    """

    name: ClassVar[str] = "busy_retry"
    kind: BusyKind
    pause: float
    label: str | None = None


@dataclass(slots=True)
class Checkpointed(PoolEvent):
    """A checkpoint copied `moved` of the WAL's `pages` into the database; "partial" if a reader prevented the rest.

    `wal_bytes` is the size of the WAL file afterwards.
    """

    name: ClassVar[str] = "checkpoint"
    result: CheckpointResult
    pages: int
    moved: int
    checkpoint_time: float
    wal_bytes: int


@dataclass(slots=True)
class CheckpointBlocked(PoolEvent):
    """`holders` (oldest first; another process if none) kept the WAL from being emptied while new readers waited."""

    name: ClassVar[str] = "checkpoint_block"
    wal_bytes: int
    holders: tuple[Holder, ...] = ()
