from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiosqlitepool import PoolUsageError, SQLiteDatabase
from aiosqlitepool.database import backup
from aiosqlitepool.events import BackupEnded, ErrorInfo
from aiosqlitepool.testing import Recorder

from ..support.databases import add, held_writer, leave_wal, texts
from ..support.files import make_database, notes
from ..support.other import other_process


def fill(native: sqlite3.Connection) -> None:
    native.executemany("INSERT INTO note (text) VALUES (?)", [("x" * 500,) for _ in range(1000)])


def leftovers(target: Path) -> list[str]:
    return [name for name in os.listdir(target.parent) if ".partial" in name]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "copies").mkdir()
    return tmp_path / "copies" / "copy.db"


async def test_a_backup_is_the_database_as_it_is(db: SQLiteDatabase, target: Path) -> None:
    await db.run_write(add, "a")
    await db.backup(target)
    assert notes(target) == ["a"]
    with contextlib.closing(sqlite3.connect(target)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_backup_is_of_one_moment_while_writers_go_on(db: SQLiteDatabase, target: Path) -> None:
    await db.run_write(fill)
    writing: list[asyncio.Task[Any]] = []

    def write(copied: int, total: int) -> None:
        writing.append(asyncio.create_task(db.run_write(add, "during")))

    await db.backup(str(target), progress=write, pages=10)
    await asyncio.gather(*writing)
    assert len(writing) > 10
    assert "during" not in notes(target)
    assert (await db.run_read(texts)).count("during") == len(writing)


async def test_progress_is_told_in_the_loop_and_ends_with_everything(db: SQLiteDatabase, target: Path) -> None:
    await db.run_write(fill)
    told: list[tuple[int, int]] = []

    def progress(copied: int, total: int) -> None:
        assert asyncio.get_running_loop()
        told.append((copied, total))

    await db.backup(target, progress=progress, pages=50)
    assert [copied for copied, _ in told] == sorted({copied for copied, _ in told})
    assert told[-1][0] == told[-1][1]
    assert len(told) > 2


async def test_a_progress_that_raises_ends_the_backup_with_that(db: SQLiteDatabase, target: Path) -> None:
    def enough(copied: int, total: int) -> None:
        raise KeyError("enough")

    await db.run_write(fill)
    for pages in (1, 100_000):
        with pytest.raises(KeyError, match="enough"):
            await db.backup(target, progress=enough, pages=pages)
    assert os.listdir(target.parent) == []


async def test_a_cancelled_backup_leaves_nothing(db: SQLiteDatabase, target: Path) -> None:
    await db.run_write(fill)
    make_database(target, "old")
    backing_up: asyncio.Task[None]
    backing_up = asyncio.create_task(db.backup(target, progress=lambda *_: backing_up.cancel(), pages=1))
    with pytest.raises(asyncio.CancelledError):
        await backing_up
    assert leftovers(target) == []
    assert notes(target) == ["old"]


async def test_an_older_copy_is_replaced_when_the_new_one_is_complete(db: SQLiteDatabase, target: Path) -> None:
    make_database(target, "old")
    await db.run_write(add, "new")
    seen: list[list[str]] = []
    await db.backup(target, progress=lambda *_: seen.append(notes(target)))
    assert seen[-1] == ["old"]
    assert notes(target) == ["new"]


async def test_what_cannot_be_a_target_is_refused_before_anything_is_copied(
    db: SQLiteDatabase, database: Path, target: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(database)
    for itself in (database, link, *(database.with_name(f"app.db-{file}") for file in ("wal", "shm", "writer"))):
        with pytest.raises(ValueError, match="target must be another file than the database itself"):
            await db.backup(itself)
    with pytest.raises(ValueError, match="target must be a file, not ':memory:'"):
        await db.backup(":memory:")
    with pytest.raises(IsADirectoryError, match="not the directory"):
        await db.backup(target.parent)
    with pytest.raises(FileNotFoundError, match="target must be in a directory that exists"):
        await db.backup(tmp_path / "missing" / "copy.db")
    with pytest.raises(ValueError, match="pages must be an int of at least 1, not 0"):
        await db.backup(target, pages=0)
    with pytest.raises(TypeError, match="progress must be callable or None, not 7"):
        await db.backup(target, progress=7)  # type: ignore[arg-type]
    assert os.listdir(target.parent) == []


async def test_a_target_that_is_in_use_is_refused(db: SQLiteDatabase, target: Path) -> None:
    async with SQLiteDatabase(make_database(target)) as other:
        await other.run_write(add, "theirs")
        with pytest.raises(FileExistsError, match="in use, or was not closed"):
            await db.backup(target)


@pytest.fixture
def umask() -> Iterator[None]:
    """New files may be read by all."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("mode", "copied"), [(0o600, 0o600), (0o640, 0o640), (0o666, 0o644), (0o400, 0o600)])
async def test_a_backup_is_no_more_readable_than_the_database_also_while_it_is_written(
    database: Path, target: Path, mode: int, copied: int
) -> None:
    modes: set[int] = set()

    def look(*_: int) -> None:
        for each in target.parent.iterdir():
            with contextlib.suppress(FileNotFoundError):  # a journal that the worker thread has deleted meanwhile
                modes.add(stat.S_IMODE(each.stat().st_mode))

    async with SQLiteDatabase(database) as db:
        await db.run_write(fill)
        os.chmod(database, mode)
        await db.backup(target, progress=look, pages=10)
        look()
    assert modes == {copied}


@pytest.mark.usefixtures("umask")
async def test_a_backup_is_not_readable_for_a_group_that_is_not_that_of_the_database(
    db: SQLiteDatabase, database: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = list(os.stat(database))
    original[stat.ST_MODE], original[stat.ST_GID] = 0o100664, original[stat.ST_GID] + 1
    for mode, copied in ((0o100660, 0o600), (0o100664, 0o644)):
        original[stat.ST_MODE] = mode
        monkeypatch.setattr(db._file, "status", lambda: os.stat_result(original))
        await db.backup(target)
        assert stat.S_IMODE(target.stat().st_mode) == copied


async def test_what_a_killed_process_of_the_same_number_left_is_replaced(
    db: SQLiteDatabase, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "_numbers", iter([7]))
    target.with_name(f"copy.db.{os.getpid()}-7.partial").write_bytes(b"half a copy")
    await db.run_write(add, "a")
    await db.backup(target)
    assert notes(target) == ["a"]
    assert os.listdir(target.parent) == ["copy.db"]


async def test_a_full_disk_leaves_nothing(db: SQLiteDatabase) -> None:
    # /dev/full cannot hold a directory; a limit on the size of files is what a full disk looks like to one process.
    import resource
    import signal

    await db.run_write(fill)
    folder = Path(db._file.path).parent / "full"
    folder.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(sqlite3.OperationalError, match=r"full|disk I/O error"):
            await db.backup(folder / "copy.db")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(folder) == []


async def test_a_database_in_memory_can_be_backed_up(memory: SQLiteDatabase, target: Path) -> None:
    await memory.run_write(add, "a")
    await memory.backup(target)
    assert notes(target) == ["a"]


async def test_a_backup_waits_for_a_writer_where_there_is_no_wal(memory: SQLiteDatabase, target: Path) -> None:
    async with held_writer(memory) as let_go:
        backing_up = asyncio.create_task(memory.backup(target))
        await asyncio.sleep(0.02)
        assert not backing_up.done()
        let_go()
        await backing_up
    assert notes(target) == []


async def test_a_backup_that_waits_can_be_cancelled(memory: SQLiteDatabase, target: Path) -> None:
    async with held_writer(memory):
        backing_up = asyncio.create_task(memory.backup(target))
        await asyncio.sleep(0.02)
        backing_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await backing_up
    assert os.listdir(target.parent) == []


async def test_a_backup_gives_up_on_a_process_that_holds_the_database(database: Path, target: Path) -> None:
    async with (
        SQLiteDatabase(database, on_connect=leave_wal, acquisition_timeout=0.05) as db,
        other_process(database, "BEGIN EXCLUSIVE"),
    ):
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            await db.backup(target)
    assert os.listdir(target.parent) == []


async def test_a_backup_needs_an_open_database(database: Path, target: Path) -> None:
    with pytest.raises(PoolUsageError, match="is not open"):
        await SQLiteDatabase(database).backup(target)


# -- what is told of it


async def test_a_backup_that_is_complete_is_told_with_its_size_and_its_time(
    db: SQLiteDatabase, target: Path, recorder: Recorder
) -> None:
    before = time.time()
    await db.backup(target)
    (event,) = recorder.of(BackupEnded)
    assert (event.pool, event.result, event.target, event.error) == ("app.db/write", "completed", str(target), None)
    assert event.size == target.stat().st_size > 0
    assert before <= event.ended_at <= time.time()
    assert 0 < event.backup_time <= event.ended_at - before + 1


async def test_a_backup_that_fails_is_told_with_its_error(db: SQLiteDatabase, target: Path, recorder: Recorder) -> None:
    def refuse(copied: int, total: int) -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        await db.backup(target, progress=refuse)
    with pytest.raises(FileNotFoundError):
        await db.backup(target.parent / "missing" / "copy.db")
    failed, missing = recorder.of(BackupEnded)
    assert (failed.result, failed.size, failed.error) == ("failed", 0, ErrorInfo("OSError", "no space"))
    assert (missing.result, missing.error and missing.error.type) == ("failed", "FileNotFoundError")


async def test_a_backup_that_is_cancelled_is_told_so(db: SQLiteDatabase, target: Path, recorder: Recorder) -> None:
    await db.run_write(fill)
    backing_up = asyncio.create_task(db.backup(target, pages=1))
    await asyncio.sleep(0)
    backing_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await backing_up
    (event,) = recorder.of(BackupEnded)
    assert (event.result, event.error) == ("cancelled", None)


async def test_an_argument_that_is_wrong_is_no_backup(db: SQLiteDatabase, target: Path, recorder: Recorder) -> None:
    with pytest.raises(ValueError, match="pages"):
        await db.backup(target, pages=0)
    assert recorder.of(BackupEnded) == []


async def test_a_backup_that_nobody_is_told_of_is_made_all_the_same(database: Path, target: Path) -> None:
    async with SQLiteDatabase(database) as db:
        await db.backup(target)
    assert target.exists()
