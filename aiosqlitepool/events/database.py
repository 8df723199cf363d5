"""What happens to databases: failures, in any pool; transactions, backups and the WAL of a `SQLiteDatabase`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import ErrorInfo
from ..kinds import BackupResult, BusyKind, CheckpointResult, TransactionOutcome
from ..stats import Holder
from .base import PoolEvent

__all__ = [
    "BackupEnded",
    "BusyRetried",
    "CheckpointBlocked",
    "CheckpointFailed",
    "Checkpointed",
    "DatabaseFailed",
    "TransactionEnded",
]


@dataclass(slots=True)
class DatabaseFailed(PoolEvent):
    """SQLite reported that the database failed, not the statement: a lock, a full disk, an I/O error, a corrupt file.

    `error.database_code` is SQLite's primary code, and `error.code` the extended one. `statement` is the normalized
    SQL; functions in the worker thread, BEGIN and COMMIT have none. Emitted for aiosqlite connections, in a copy of the
    caller's context. A lock that a `SQLiteDatabase` waits for is a failure only when it gives up.
    """

    name: ClassVar[str] = "database_fail"
    error: ErrorInfo
    label: str | None = None
    statement: str | None = None


@dataclass(slots=True)
class TransactionEnded(PoolEvent):
    """A `SQLiteDatabase` transaction ended: "committed", "rolled_back" by its own code, or "failed".

    It failed if it could not begin or commit, or was rolled back because of an error whose `database_code` says that
    the database failed. `error` is what ended it, unless it committed. `wait_time` runs from the call to the (last)
    `BEGIN`, `duration` from there to the end. `retries` is how often it began again because another process held the
    database.
    """

    name: ClassVar[str] = "transaction"
    outcome: TransactionOutcome
    wait_time: float
    duration: float
    retries: int = 0
    label: str | None = None
    error: ErrorInfo | None = None


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


@dataclass(slots=True)
class CheckpointFailed(PoolEvent):
    """A checkpoint raised an error. `wal_bytes` is the size of the WAL file, which grows until one succeeds."""

    name: ClassVar[str] = "checkpoint_fail"
    error: ErrorInfo
    wal_bytes: int


@dataclass(slots=True)
class BackupEnded(PoolEvent):
    """A backup ended: "completed"; "failed" with `error`; or "cancelled". `pool` is the pool of the writer.

    `target` is the path of the copy, `size` its size in bytes if it is complete. `ended_at` is a Unix time.
    """

    name: ClassVar[str] = "backup_end"
    result: BackupResult
    target: str
    backup_time: float
    ended_at: float
    size: int = 0
    error: ErrorInfo | None = None
