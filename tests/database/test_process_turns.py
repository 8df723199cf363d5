"""Writers of several processes take turns: they queue in the kernel for a lock on a file beside the database.

Another process is here another open file, which the kernel treats alike, except where a process has to die.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import sqlite3
import stat
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from aiosqlitepool import SQLiteDatabase
from aiosqlitepool.database.process_turns import (
    _STEP_BACK,
    TURN,
    NotOurTurn,
    ProcessTurns,
    _mark_waiting,
)
from aiosqlitepool.testing import Recorder

from ..support.clock import Clock
from ..support.databases import add
from ..support.files import notes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")


class Other:
    """Another process that takes turns at the same database."""

    def __init__(self, database: Path) -> None:
        self.descriptor = os.open(f"{database}-writer", os.O_RDWR | os.O_CREAT, 0o600)

    def lock(self) -> None:
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)

    def unlock(self) -> None:
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def could_lock(self) -> bool:
        """Whether nobody else has the lock."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.unlock()
        return True


@pytest.fixture
def other(database: Path) -> Iterator[Other]:
    other = Other(database)
    yield other
    os.close(other.descriptor)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def turns(database: Path, clock: Clock) -> AsyncIterator[ProcessTurns]:
    turns = ProcessTurns(str(database), clock)
    yield turns
    turns.close()


async def until_true(condition: object) -> None:
    while not condition():  # type: ignore[operator]
        await asyncio.sleep(0.001)


def waits(database: SQLiteDatabase) -> bool:
    return database.writer.turns._thread_waits  # type: ignore[attr-defined]


# -- a database and another process


async def test_a_write_block_waits_for_the_turn_of_another_process(
    db: SQLiteDatabase, database: Path, other: Other
) -> None:
    other.lock()

    async def write() -> None:
        async with db.write() as connection:
            await connection.execute("INSERT INTO note (text) VALUES ('a')")

    writing = asyncio.create_task(write())
    await until_true(lambda: waits(db))
    assert notes(database) == []
    other.unlock()
    await writing
    assert notes(database) == ["a"]


async def test_functions_that_wait_for_their_turn_run_in_the_order_of_their_calls(
    db: SQLiteDatabase, database: Path, other: Other
) -> None:
    other.lock()
    before = [asyncio.create_task(db.run_write(add, text)) for text in "abcd"]
    await until_true(lambda: waits(db))
    other.unlock()
    after = [asyncio.create_task(db.run_write(add, text)) for text in "efgh"]
    await asyncio.gather(*before, *after)
    assert notes(database) == list("abcdefgh")


async def test_a_cancelled_caller_leaves_the_turn_to_the_next_one(
    db: SQLiteDatabase, database: Path, other: Other
) -> None:
    other.lock()
    first, second = (asyncio.create_task(db.run_write(add, text)) for text in "ab")
    await until_true(lambda: waits(db))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    other.unlock()
    await second
    assert notes(database) == ["b"]


async def test_a_turn_that_comes_when_all_were_cancelled_is_passed_on(db: SQLiteDatabase, other: Other) -> None:
    other.lock()
    writing = asyncio.create_task(db.run_write(add, "a"))
    await until_true(lambda: waits(db))
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    other.unlock()
    await until_true(other.could_lock)


async def test_the_timeout_of_a_caller_that_waits_for_its_turn_is_a_locked_database(
    db: SQLiteDatabase, other: Other
) -> None:
    other.lock()
    with pytest.raises(sqlite3.OperationalError, match="database is locked") as raised:
        await db.run_write(add, "a", timeout=0.02)
    assert raised.value.sqlite_errorcode == sqlite3.SQLITE_BUSY
    assert "until the timeout of 0.02 s" in raised.value.__notes__[0]
    other.unlock()
    await db.run_write(add, "b")


async def test_without_a_timeout_a_caller_waits_until_its_turn(database: Path, other: Other) -> None:
    other.lock()
    async with SQLiteDatabase(database, acquisition_timeout=None) as db:
        writing = asyncio.create_task(db.run_write(add, "a"))
        await until_true(lambda: waits(db))
        other.unlock()
        await writing
    assert notes(database) == ["a"]


async def test_waiting_for_a_turn_is_no_retry(db: SQLiteDatabase, recorder: Recorder, other: Other) -> None:
    other.lock()
    writing = asyncio.create_task(db.run_write(add, "a"))
    await until_true(lambda: waits(db))
    other.unlock()
    await writing
    assert "busy_retry" not in {event.name for event in recorder}


async def test_a_statement_that_waits_for_its_turn_has_run_once(db: SQLiteDatabase, other: Other) -> None:
    other.lock()
    writing = asyncio.create_task(db.execute("INSERT INTO note (text) VALUES ('a')"))
    await until_true(lambda: waits(db))
    other.unlock()
    await writing
    assert [(row.calls, row.errors) for row in db.writer.statements() if row.operation == "INSERT"] == [(1, 0)]


@pytest.mark.parametrize("end", ["commit", "error", "cancellation"])
async def test_the_turn_ends_with_the_block(db: SQLiteDatabase, other: Other, end: str) -> None:
    async def write() -> None:
        async with db.write() as connection:
            await connection.execute("INSERT INTO note (text) VALUES ('a')")
            assert not other.could_lock()
            if end == "error":
                raise ValueError
            if end == "cancellation":
                asyncio.current_task().cancel()  # type: ignore[union-attr]
                await asyncio.sleep(0)

    await asyncio.gather(asyncio.create_task(write()), return_exceptions=True)
    assert other.could_lock()


async def test_a_database_that_closes_while_it_waits_for_its_turn_leaves_no_lock(database: Path, other: Other) -> None:
    db = SQLiteDatabase(database, operation_timeout=1)
    await db.open()
    other.lock()
    writing = asyncio.create_task(db.run_write(add, "a"))
    await until_true(lambda: waits(db))
    turns = db.writer.turns  # type: ignore[attr-defined]
    with pytest.warns(ResourceWarning, match="closed connections under their holders"):
        await db.close(timeout=0)
    await asyncio.gather(writing, return_exceptions=True)
    other.unlock()
    await until_true(lambda: turns._descriptor is None)
    assert other.could_lock()
    assert notes(database) == []


async def test_other_processes_get_their_turn_from_one_that_never_pauses(
    db: SQLiteDatabase, database: Path, other: Other
) -> None:
    over = asyncio.Event()

    async def write() -> None:
        while not over.is_set():
            await db.run_write(add, "a")

    writing = [asyncio.create_task(write()) for _ in range(4)]
    await until_true(lambda: notes(database))

    def queue() -> None:
        _mark_waiting(other.descriptor, is_waiting=True)
        for _ in range(5):
            other.lock()
            other.unlock()
        _mark_waiting(other.descriptor, is_waiting=False)

    await asyncio.to_thread(queue)
    over.set()
    await asyncio.gather(*writing)


async def test_a_process_that_is_killed_in_its_turn_keeps_nobody_waiting(db: SQLiteDatabase, database: Path) -> None:
    program = f"""
import asyncio, aiosqlitepool
async def main():
    async with aiosqlitepool.SQLiteDatabase({str(database)!r}) as db, db.write() as connection:
        await connection.execute("INSERT INTO note (text) VALUES ('lost')")
        print("writes", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"writes\n"
    writing = asyncio.create_task(db.run_write(add, "a"))
    await until_true(lambda: waits(db))
    process.send_signal(signal.SIGKILL)
    await writing
    await process.wait()
    assert notes(database) == ["a"]


async def test_two_processes_share_the_writing(db: SQLiteDatabase, database: Path) -> None:
    program = f"""
import asyncio, aiosqlitepool
async def main():
    async with aiosqlitepool.SQLiteDatabase({str(database)!r}) as db:
        for _ in range(20):
            async with db.write() as connection:
                await connection.execute("INSERT INTO note (text) VALUES ('theirs')")
                await asyncio.sleep(0.02)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    ending = asyncio.create_task(process.wait())
    await until_true(lambda: notes(database))
    while not ending.done():
        async with db.write() as connection:
            await connection.execute("INSERT INTO note (text) VALUES ('ours')")
            await asyncio.sleep(0.02)
    written = notes(database)
    assert written.count("theirs") == 20
    # Until their last one: after that, their process may take long to end, and we write alone.
    shared = written[: -written[::-1].index("theirs")]
    # Each may write twice while the other is not scheduled; with SQLite's own waiting it is often a hundred times.
    assert shared.count("ours") < 100


async def test_a_transaction_that_finds_the_database_locked_tries_again_in_its_turn(
    turns: ProcessTurns, other: Other
) -> None:
    await waited_for(turns, other, "first")
    turns.begin("first")
    turns.begin("first")
    turns.end("first", has_more=True)
    turns.begin("second")


async def test_a_transaction_that_found_the_database_locked_until_its_turn_was_over_waits_again(
    turns: ProcessTurns, other: Other, clock: Clock
) -> None:
    await waited_for(turns, other, "first")
    turns.begin("first")
    clock.advance(2 * TURN)
    _mark_waiting(other.descriptor, is_waiting=True)
    with pytest.raises(NotOurTurn):
        turns.begin("first")
    _mark_waiting(other.descriptor, is_waiting=False)
    turns.begin("first")


# -- where there are no turns


async def test_without_queue_across_processes_there_is_no_such_file(database: Path) -> None:
    async with SQLiteDatabase(database, queue_across_processes=False) as db:
        await db.run_write(add, "a")
    assert not Path(f"{database}-writer").exists()


async def test_queue_across_processes_is_true_or_false(database: Path) -> None:
    with pytest.raises(TypeError, match="queue_across_processes must be True or False, not 1"):
        SQLiteDatabase(database, queue_across_processes=1)  # type: ignore[arg-type]


async def test_a_database_in_memory_has_no_such_file(
    memory: SQLiteDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await memory.run_write(add, "a")
    assert list(tmp_path.iterdir()) == []


async def test_where_the_file_cannot_be_opened_writers_do_without(db: SQLiteDatabase, database: Path) -> None:
    Path(f"{database}-writer").mkdir()
    await asyncio.gather(*(db.run_write(add, text) for text in "abc"))
    assert notes(database) == ["a", "b", "c"]


async def test_where_the_file_system_has_no_locks_writers_do_without(
    db: SQLiteDatabase, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("aiosqlitepool.database.process_turns.fcntl.flock", refuse)
    await asyncio.gather(*(db.run_write(add, text) for text in "abc"))
    assert notes(database) == ["a", "b", "c"]


# -- the file


async def test_whoever_may_write_to_the_database_may_lock_the_file(db: SQLiteDatabase, database: Path) -> None:
    database.chmod(0o664)
    await db.run_write(add, "a")
    assert stat.S_IMODE(Path(f"{database}-writer").stat().st_mode) == 0o664


async def test_a_forked_child_leaves_the_lock_to_its_parent(turns: ProcessTurns, other: Other) -> None:
    turns.begin("a transaction")
    descriptor = turns._descriptor
    assert descriptor is not None
    of_the_parent = os.dup(descriptor)
    turns.forked()
    assert not other.could_lock()
    turns.begin("another one")  # harmless: its pool refuses it
    os.close(of_the_parent)
    assert other.could_lock()


async def test_the_writer_of_a_forked_child_leaves_the_lock_to_its_parent(db: SQLiteDatabase) -> None:
    await db.run_write(add, "a")
    pool = db.writer
    turns = pool.turns  # type: ignore[attr-defined]
    await db.close()
    pool.forked()  # harmless, too, when it is closed
    assert turns._descriptor is None


# -- turns


async def waited_for(turns: ProcessTurns, other: Other, transaction: object) -> None:
    """Have a transaction wait for a turn until it comes."""
    other.lock()
    with pytest.raises(NotOurTurn):
        turns.begin(transaction)
    waiting = asyncio.create_task(turns.wait(None))
    await until_true(lambda: turns._thread_waits)
    other.unlock()
    await waiting


async def test_a_turn_that_was_waited_for_goes_on_while_there_is_more_to_write(
    turns: ProcessTurns, other: Other
) -> None:
    await waited_for(turns, other, 0)
    for each in range(3):
        turns.begin(each)
        assert not other.could_lock()
        turns.end(each, has_more=each < 2)
    assert other.could_lock()


async def test_a_turn_that_nobody_waited_for_ends_with_its_transaction(turns: ProcessTurns, other: Other) -> None:
    turns.begin("first")
    turns.end("first", has_more=True)
    assert other.could_lock()


async def test_a_turn_is_over_after_its_time_although_there_is_more_to_write(
    turns: ProcessTurns, other: Other, clock: Clock
) -> None:
    await waited_for(turns, other, "first")
    turns.begin("first")
    clock.advance(1.5 * TURN)
    turns.end("first", has_more=True)
    assert other.could_lock()
    turns.begin("second")  # nobody else waits, so that it is our turn again


async def test_a_turn_that_is_over_is_begun_again_if_nobody_waits(
    turns: ProcessTurns, other: Other, clock: Clock
) -> None:
    await waited_for(turns, other, "first")
    turns.begin("first")
    turns.end("first", has_more=True)
    clock.advance(1.5 * TURN)
    turns.begin("second")
    turns.end("second", has_more=False)
    assert other.could_lock()


async def test_a_turn_in_which_nobody_writes_ends_although_there_is_more_to_write(
    turns: ProcessTurns, other: Other
) -> None:
    # A maintenance block stands before the next writer, say, or the loop is blocked.
    await waited_for(turns, other, "first")
    turns.begin("first")
    turns.end("first", has_more=True)
    await until_true(other.could_lock)


async def test_a_turn_that_is_not_begun_is_passed_on(turns: ProcessTurns, other: Other) -> None:
    await waited_for(turns, other, "first")
    time.sleep(0.01)  # a blocked loop
    await until_true(other.could_lock)
    turns.begin("first")


async def test_a_transaction_that_outlasts_its_turn_ends_it(turns: ProcessTurns, other: Other) -> None:
    await waited_for(turns, other, "first")
    turns.begin("first")
    await until_true(lambda: turns._thread is None)
    assert not other.could_lock()
    turns.end("first", has_more=True)
    assert other.could_lock()


async def test_a_thread_that_could_not_be_started_is_started_the_next_time(
    turns: ProcessTurns, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.lock()
    with pytest.raises(NotOurTurn):
        turns.begin("first")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("no more threads")))
        await turns.wait(None)
    waiting = asyncio.create_task(turns.wait(None))
    await until_true(lambda: turns._thread_waits)
    other.unlock()
    await waiting
    turns.begin("first")


async def test_who_would_wait_when_it_is_closed_does_not(turns: ProcessTurns, other: Other) -> None:
    other.lock()
    with pytest.raises(NotOurTurn):
        turns.begin("first")
    waiting = asyncio.create_task(turns.wait(None))
    await until_true(lambda: turns._thread_waits)
    turns.close()
    await turns.wait(None)
    await waiting
    other.unlock()
    await until_true(lambda: turns._descriptor is None)


async def test_whoever_waits_in_another_process_has_the_next_turn(turns: ProcessTurns, other: Other) -> None:
    turns.begin("first")
    _mark_waiting(other.descriptor, is_waiting=True)
    turns.end("first", has_more=True)
    with pytest.raises(NotOurTurn):
        turns.begin("third")
    _mark_waiting(other.descriptor, is_waiting=False)
    turns.begin("third")


@pytest.mark.parametrize("others_wait", [True, False])
async def test_a_process_lets_those_run_first_that_wait_already(
    database: Path, other: Other, others_wait: bool
) -> None:
    """The kernel wakes them, and has not chosen one: the process that has just unlocked the file would be faster."""
    slept: list[float] = []
    turns = ProcessTurns(str(database), sleep=slept.append)
    other.lock()
    _mark_waiting(other.descriptor, is_waiting=others_wait)
    with pytest.raises(NotOurTurn):
        turns.begin("it")
    waiting = asyncio.create_task(turns.wait(None))
    await until_true(lambda: turns._thread_waits)
    other.unlock()
    await waiting
    assert (_STEP_BACK in slept) is others_wait
    turns.close()


async def test_one_thread_waits_for_all(turns: ProcessTurns, other: Other) -> None:
    other.lock()
    before = set(threading.enumerate())
    with pytest.raises(NotOurTurn):
        turns.begin(0)
    waiting = [asyncio.create_task(turns.wait(None)) for _ in range(3)]
    await until_true(lambda: turns._thread_waits)
    (thread,) = set(threading.enumerate()) - before
    assert thread.name == "aiosqlitepool-turn"
    with pytest.raises(NotOurTurn):  # the thread has it, when it is our turn
        turns.begin(0)
    other.unlock()
    await asyncio.gather(*waiting)
    turns.begin(0)
    await turns.wait(None)  # at once: it is our turn


async def test_a_turn_that_has_come_has_its_whole_time_before_it(database: Path, other: Other, clock: Clock) -> None:
    is_over = threading.Event()

    def sleep(seconds: float) -> None:
        is_over.wait(60)

    turns = ProcessTurns(str(database), clock, sleep)
    try:
        await waited_for(turns, other, "a")
        clock.advance(2 * TURN)  # a busy loop
        turns.begin("a")
        turns.end("a", has_more=True)
        assert not other.could_lock()
    finally:
        is_over.set()
        turns.close()


def test_a_turn_that_comes_after_the_loop_was_closed_is_passed_on(database: Path, other: Other) -> None:
    turns = ProcessTurns(str(database))
    other.lock()

    async def wait() -> None:
        with pytest.raises(NotOurTurn):
            turns.begin("a")
        await turns.wait(0)

    asyncio.run(wait())
    other.unlock()
    while not other.could_lock():
        time.sleep(0.001)
    turns.close()
