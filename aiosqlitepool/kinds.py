"""The words that fields of events may have."""

from __future__ import annotations

from typing import Literal

__all__ = [
    "BackupResult",
    "BusyKind",
    "CheckpointResult",
    "CloseReason",
    "DatabaseCode",
    "RollbackCause",
    "TransactionOutcome",
]

CloseReason = Literal["idle", "lifetime", "unhealthy", "reset_failed", "broken", "pool_closed"]
RollbackCause = Literal["in_flight", "transaction", "cursor"]
TransactionOutcome = Literal["committed", "rolled_back", "failed"]
BusyKind = Literal["busy", "snapshot"]
CheckpointResult = Literal["complete", "partial"]
BackupResult = Literal["completed", "failed", "cancelled"]
# SQLite's primary error codes for a failure of the database, its locks or its disk, and not of the statement. Source:
# sqlite.org/rescode.html.
DatabaseCode = Literal[
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_NOMEM",
    "SQLITE_READONLY",
    "SQLITE_IOERR",
    "SQLITE_CORRUPT",
    "SQLITE_FULL",
    "SQLITE_CANTOPEN",
    "SQLITE_PROTOCOL",
    "SQLITE_NOTADB",
]
