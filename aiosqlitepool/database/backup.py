"""A copy of a database while it is in use: of one moment, taken while writers go on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from .file import DatabaseFile

__all__ = ["Progress", "back_up"]

# Called with the pages copied so far and the pages in all.
Progress = Callable[[int, int], object]


async def back_up(file: DatabaseFile, target: str | os.PathLike[str], progress: Progress | None, pages: int) -> None:
    """Copy the database to `target`, `pages` at a time, calling `progress(copied, total)` in the event loop.

    The copy appears when it is complete; an older file of that name is replaced then. Raises `ValueError` if `target`
    is the database itself, and what SQLite or the operating system raise. Cancelled, it leaves nothing behind.
    """
    if isinstance(pages, bool) or not isinstance(pages, int) or pages < 1:
        raise ValueError(f"pages must be an int of at least 1, not {pages!r}")
    path = Path(target)
    if file.is_at(path):
        raise ValueError(f"target must be another file than the database itself, not {os.fspath(target)!r}")
    if path.with_name(f"{path.name}-wal").exists():
        # SQLite would take what is in there for changes to the copy.
        raise FileExistsError(f"{path}-wal exists: the database at target is in use, or was not closed")
    loop, stopped = asyncio.get_running_loop(), threading.Event()

    def report(status: int, remaining: int, total: int) -> None:
        if stopped.is_set():
            raise _Stopped
        if progress is not None:
            loop.call_soon_threadsafe(progress, total - remaining, total)

    copying = asyncio.ensure_future(asyncio.to_thread(_copy, file, path, report, pages))
    try:
        await asyncio.shield(copying)
    except asyncio.CancelledError:
        stopped.set()
        await asyncio.wait({copying})
        copying.cancelled() or copying.exception()
        raise


class _Stopped(Exception):  # noqa: N818 - never leaves the thread
    """The caller was cancelled."""


def _copy(file: DatabaseFile, path: Path, report: Callable[[int, int, int], None], pages: int) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    source = file.connect_natively()
    try:
        # A transaction of its own, or each commit of a writer would start the copying anew.
        source.execute("BEGIN")
        source.execute("SELECT 1 FROM sqlite_schema LIMIT 1").close()
        copy = sqlite3.connect(unfinished)
        try:
            source.backup(copy, pages=pages, progress=report, sleep=0)
        finally:
            copy.close()
        os.replace(unfinished, path)
    finally:
        source.close()
        for leftover in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
            with contextlib.suppress(FileNotFoundError):
                leftover.unlink()
