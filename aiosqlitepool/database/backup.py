"""Back up a database while it is in use. The copy is a snapshot; in WAL mode, writers do not wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..driver import ended, is_busy
from ..errors import ErrorInfo
from ..events import BackupEnded, BackupResult
from .busy import pauses
from .file import DatabaseFile
from .writer import WriterPool

__all__ = ["Progress", "back_up"]

# Called with the number of pages copied so far and the total number of pages.
Progress = Callable[[int, int], object]

_numbers = itertools.count(1)


async def back_up(pool: WriterPool, target: str | os.PathLike[str], progress: Progress | None, pages: int) -> None:
    """Copy the database of this pool to `target`, as `SQLiteDatabase.backup()` describes, and emit how that ended.

    If the copy fails or is cancelled, the incomplete file is removed.
    """
    if isinstance(pages, bool) or not isinstance(pages, int) or pages < 1:
        raise ValueError(f"pages must be an int of at least 1, not {pages!r}")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable or None, not {progress!r} ({type(progress).__name__})")
    path = Path(target)
    with _emitted(pool, path):
        await _copy(pool.file, _checked(pool.file, path), progress, pages, pool._settings.acquisition_timeout)


@contextlib.contextmanager
def _emitted(pool: WriterPool, target: Path) -> Iterator[None]:
    """Emit `BackupEnded` at the end of the block."""
    result: BackupResult = "failed"
    started_at = time.monotonic()
    try:
        yield
        result = "completed"
    except asyncio.CancelledError:
        result = "cancelled"
        raise
    finally:
        if BackupEnded in pool.events.handlers:
            error = sys.exception() if result == "failed" else None
            info = None if error is None else ErrorInfo.of(error)
            took, size = time.monotonic() - started_at, os.stat(target).st_size if result == "completed" else 0
            pool.events.emit(BackupEnded(pool.name, result, str(target), took, time.time(), size, info))


async def _copy(file: DatabaseFile, path: Path, progress: Progress | None, pages: int, timeout: float) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}-{next(_numbers)}.partial")
    backup = _Backup(file, unfinished, progress, pages, timeout)
    _remove(unfinished)  # of a process of the same number that was killed
    _create(file, unfinished)
    running = asyncio.ensure_future(asyncio.to_thread(backup.run))
    try:
        try:
            await asyncio.wait((running,))
        except asyncio.CancelledError as cancellation:
            backup.error = cancellation
            await ended(running)
            raise
        running.result()
        backup.raise_if_aborted()
        os.replace(unfinished, path)
    finally:
        _remove(unfinished)


def _create(file: DatabaseFile, path: Path) -> None:
    """Create an empty file that is no more readable than the database. SQLite gives its journal the same permissions.

    Members of a group may read the copy only if it is the group of the database, or if all users may read that.
    """
    original = file.status()
    if original is None:  # in memory: there is nothing to compare with
        return
    mode = stat.S_IMODE(original.st_mode) & 0o666
    # The umask of the process applies. Its owner must be able to write it.
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode | 0o600)
    created = os.fstat(descriptor)
    os.close(descriptor)
    if created.st_gid != original.st_gid:
        os.chmod(path, stat.S_IMODE(created.st_mode) & (0o606 | (mode & 0o006) << 3))


def _remove(unfinished: Path) -> None:
    for leftover in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
        leftover.unlink(missing_ok=True)


def _checked(file: DatabaseFile, path: Path) -> Path:
    shown = os.fspath(path)
    if file.is_at(path):
        raise ValueError(f"target must be another file than the database itself, not {shown!r}")
    if shown == ":memory:":
        raise ValueError("target must be a file, not ':memory:'")
    if path.is_dir():
        raise IsADirectoryError(f"target must be a file, not the directory {shown!r}")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"target must be in a directory that exists, not {shown!r}")
    wal = path.with_name(f"{path.name}-wal")
    if wal.exists():
        # SQLite would apply this WAL to the copy.
        raise FileExistsError(f"{wal} exists: the database at {shown!r} is in use, or was not closed. Close it first")
    return path


@dataclass(eq=False)
class _Backup:
    """One backup. `run` and the methods that it calls belong to a worker thread, the others to the event loop."""

    file: DatabaseFile
    path: Path
    progress: Progress | None
    pages: int
    timeout: float
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    # Set in the event loop to stop before the next pages and raise it; read in the worker thread.
    error: BaseException | None = None

    def raise_if_aborted(self) -> None:
        """Raise `error`, if there is one. Safe to call from any thread."""
        if self.error is not None:
            raise self.error

    def _call_progress(self, copied: int, total: int) -> None:
        if self.progress is not None and self.error is None:
            try:
                self.progress(copied, total)
            except BaseException as error:
                self.error = error

    # -- in the worker thread

    def run(self) -> None:
        """Copy all pages."""
        with contextlib.closing(self.file.connect_natively()) as source:
            self._begin_reading(source)
            with contextlib.closing(sqlite3.Connection(self.path)) as copy:
                # Not connect(), for which a tracer may return a proxy. Sleeps only if another process uses the copy.
                source.backup(copy, pages=self.pages, progress=self._on_pages_copied)

    def _begin_reading(self, source: sqlite3.Connection) -> None:
        """Begin a read transaction. Without it, SQLite would restart the backup after each commit."""
        pausing = pauses(time.monotonic() + self.timeout)
        source.execute("BEGIN")
        while True:
            try:
                return source.execute("SELECT 1 FROM sqlite_schema LIMIT 1").close()
            except sqlite3.Error as error:  # without WAL, a writer locks readers out
                if not is_busy(error) or (pause := next(pausing, None)) is None:
                    raise
            self.raise_if_aborted()
            time.sleep(pause)

    def _on_pages_copied(self, status: int, remaining: int, total: int) -> None:
        self.raise_if_aborted()
        self.loop.call_soon_threadsafe(self._call_progress, total - remaining, total)
