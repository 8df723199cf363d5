"""A copy of a database while it is in use: of one moment, taken while writers go on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from ..driver import ended
from .busy import busy_kind, pauses
from .file import DatabaseFile

__all__ = ["Progress", "back_up"]

# Called with the pages copied so far and the pages in all.
Progress = Callable[[int, int], object]

_numbers = itertools.count(1)


async def back_up(
    file: DatabaseFile, target: str | os.PathLike[str], progress: Progress | None, pages: int, patience: float | None
) -> None:
    """Copy the database to `target`, `pages` at a time, calling `progress(copied, total)` in the event loop.

    The copy appears when it is complete; an older file of that name is replaced then. Raises `ValueError` if `target`
    is the database itself, and what SQLite, the operating system or `progress` raise. Cancelled or failed, it leaves
    nothing behind.
    """
    if isinstance(pages, bool) or not isinstance(pages, int) or pages < 1:
        raise ValueError(f"pages must be an int of at least 1, not {pages!r}")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable or None, not {progress!r} ({type(progress).__name__})")
    path = _checked(file, target)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}-{next(_numbers)}.partial")
    copying = _Copying(file, unfinished, progress, pages, patience)
    running = asyncio.ensure_future(asyncio.to_thread(copying.run))
    try:
        try:
            await asyncio.wait((running,))
        except asyncio.CancelledError as cancellation:
            copying.stop(cancellation)
            await ended(running)
            raise
        running.result()
        copying.check()
        os.replace(unfinished, path)
    finally:
        for leftover in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
            leftover.unlink(missing_ok=True)


def _checked(file: DatabaseFile, target: str | os.PathLike[str]) -> Path:
    path, shown = Path(target), os.fspath(target)
    if file.is_at(path):
        raise ValueError(f"target must be another file than the database itself, not {shown!r}")
    if shown == ":memory:":
        raise ValueError("target must be a file, not ':memory:'")
    if path.is_dir():
        raise IsADirectoryError(f"target must be a file, not the directory {shown!r}")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"target must be in a directory that exists, not {shown!r}")
    if path.with_name(f"{path.name}-wal").exists():
        # SQLite would take what is in there for changes to the copy.
        raise FileExistsError(f"{path}-wal exists: the database at target is in use, or was not closed")
    return path


class _Copying:
    """One copying; `run` is for a thread of its own, the rest for the event loop."""

    def __init__(
        self, file: DatabaseFile, path: Path, progress: Progress | None, pages: int, patience: float | None
    ) -> None:
        self._file = file
        self._path = path
        self._progress = progress
        self._pages = pages
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        # Why to stop, once there is a reason.
        self._reason: BaseException | None = None

    def stop(self, reason: BaseException) -> None:
        """Copy no further."""
        self._reason = reason

    def check(self) -> None:
        """Raise what there is as a reason to stop."""
        if self._reason is not None:
            raise self._reason

    def _tell(self, copied: int, total: int) -> None:
        if self._progress is not None and self._reason is None:
            try:
                self._progress(copied, total)
            except BaseException as error:
                self.stop(error)

    # -- in the thread

    def run(self) -> None:
        """Copy everything."""
        with contextlib.closing(self._file.connect_natively()) as source:
            self._begin_reading(source)
            with contextlib.closing(sqlite3.connect(self._path)) as copy:
                # It sleeps only if somebody else is at work in the copy.
                source.backup(copy, pages=self._pages, progress=self._report)

    def _begin_reading(self, source: sqlite3.Connection) -> None:
        """Begin a transaction, or each commit of a writer would start the copying anew."""
        since, pausing = time.monotonic(), pauses()
        source.execute("BEGIN")
        while True:
            try:
                return source.execute("SELECT 1 FROM sqlite_schema LIMIT 1").close()
            except sqlite3.Error as error:  # a writer is in the way, where there is no WAL
                late = self._patience is not None and time.monotonic() > since + self._patience
                if busy_kind(error) is None or late:
                    raise
            self.check()
            time.sleep(next(pausing))

    def _report(self, status: int, remaining: int, total: int) -> None:
        self.check()
        self._loop.call_soon_threadsafe(self._tell, total - remaining, total)
