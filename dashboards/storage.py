"""Panels about files and disks: what SQLite reports of them, what they have left, and backups."""

from __future__ import annotations

from aiosqlitepool.subscribers._metrics import BACKUPS, DATABASE_ERRORS, DATABASE_SIZE, DISK_FREE, LAST_BACKUP

from .frame import Row
from .panels import Panel, lines, over_time
from .queries import BACKUP_RESULT, CODE, largest, per_minute, smallest

__all__ = ["row"]

_NO_WRITER = "Only the writer of a SQLiteDatabase has them"


def row() -> Row:
    """The row of these panels."""
    return Row("Is the database file healthy?", 8, [_errors(), _disk(), _backups()])


def _errors() -> Panel:
    return lines(
        "Database errors",
        "Does SQLite report errors of the database?",
        "By SQLite's error code. BUSY and LOCKED: another connection has the lock. FULL, IOERR, READONLY, CORRUPT and "
        "NOTADB: the disk or the file. The log record pool.database.failed has the statement. Alert: "
        "AiosqlitepoolDatabaseBroken.",
        "cpm",
        over_time(per_minute(DATABASE_ERRORS, CODE), f"{{{{{CODE}}}}}"),
        names=DATABASE_ERRORS.known,
        stacked=True,
        bad=1,
    )


def _disk() -> Panel:
    return lines(
        "Disk and database",
        "Is there room to write?",
        "The free space of the disk, and the size of the database. If free falls while the database does not grow, "
        "look for the WAL, logs or backups on the same disk. Alert: AiosqlitepoolDiskFilling.",
        "decbytes",
        over_time(smallest(DISK_FREE), "free"),
        over_time(largest(DATABASE_SIZE), "database"),
        empty=_NO_WRITER,
    )


def _backups() -> Panel:
    return lines(
        "Backups",
        "How old is the last copy?",
        "Time since the last db.backup() of each result, in running processes. Failed below completed: the last one "
        "failed, see the log record pool.backup.failed. Alert: AiosqlitepoolBackupFailing.",
        "s",
        over_time(f"time() - {largest(LAST_BACKUP, BACKUP_RESULT)}", f"{{{{{BACKUP_RESULT}}}}}"),
        names=BACKUPS.known,
        empty="No backup of a SQLiteDatabase yet",
    )
