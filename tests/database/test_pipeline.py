from __future__ import annotations

import asyncio
import gc
import time
import weakref
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolConnectionAcquireTimeoutError, SQLiteDatabase
from aiosqlitepool.database.pipeline import Shares, _Share
from aiosqlitepool.events import AcquireCancelled, AcquireTimedOut, ConnectionAcquired
from aiosqlitepool.pool.request import Queued
from aiosqlitepool.testing import Recorder

from ..support.databases import Hold, add, held_writer, until_waiting
from ..support.files import notes


def shares_of(db: SQLiteDatabase) -> Shares:
    return db.writer.shares  # type: ignore[attr-defined,no-any-return]


async def waiting_functions(db: SQLiteDatabase, count: int) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(db.run_write(add, str(number))) for number in range(count)]
    await until_waiting(db, count)
    return tasks


async def test_functions_that_wait_together_stand_in_the_queue_once(db: SQLiteDatabase, recorder: Recorder) -> None:
    async with held_writer(db) as let_go:
        waiting = await waiting_functions(db, 10)
        before = len(recorder.of(ConnectionAcquired))
        let_go()
        await asyncio.gather(*waiting)
    assert len(recorder.of(ConnectionAcquired)) == before + 1


async def test_those_who_wait_for_their_turn_with_the_connection_are_told_with_their_age(db: SQLiteDatabase) -> None:
    with Hold() as hold:
        working = asyncio.create_task(db.run_write(hold))
        await hold.reached.wait()
        waiting = [asyncio.create_task(db.run_write(add, name, label=name), name=name) for name in ("one", "two")]
        await until_waiting(db, 2)
        one, two = db.writer.waiters()
        assert [(each.task, each.label) for each in (one, two)] == [("one", "one"), ("two", "two")]
        assert db.writer.stats().oldest_waiter >= one.waited >= two.waited >= 0
        hold.let_go()
        await asyncio.gather(working, *waiting)
    assert db.writer.waiters() == ()
    assert db.writer.stats().oldest_waiter == 0


async def test_of_functions_that_wait_for_the_connection_each_is_told_once(db: SQLiteDatabase) -> None:
    async with held_writer(db) as let_go:
        waiting = await waiting_functions(db, 3)
        assert len(db.writer.waiters()) == 3
        assert db.writer.waiters()[0].waited <= db.writer.stats().oldest_waiter
        let_go()
        await asyncio.gather(*waiting)


@pytest.mark.parametrize("doomed", [0, 1, 2])
async def test_a_cancelled_function_takes_nobody_with_it(db: SQLiteDatabase, database: Path, doomed: int) -> None:
    async with held_writer(db) as let_go:
        waiting = await waiting_functions(db, 3)
        waiting[doomed].cancel()
        await until_waiting(db, 2)
        # Who waits goes on being joined.
        waiting.append(asyncio.create_task(db.run_write(add, "joined")))
        await until_waiting(db, 3)
        let_go()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert [task.cancelled() for task in waiting] == [number == doomed for number in range(4)]
    assert notes(database) == [text for text in ("0", "1", "2", "joined") if text != str(doomed)]


async def test_when_all_are_cancelled_nobody_waits_any_more(db: SQLiteDatabase, recorder: Recorder) -> None:
    async with held_writer(db):
        waiting = await waiting_functions(db, 3)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await until_waiting(db, 0)
        assert len(recorder.of(AcquireCancelled)) == 1
    assert await db.run_write(add, "kept") == 1


async def test_a_function_cancelled_before_its_share_began_to_wait_leaves_no_trace(db: SQLiteDatabase) -> None:
    task = asyncio.create_task(db.run_write(add, "never"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert await db.run_write(add, "kept") == 1
    async with db.write():
        pass


async def test_a_share_cancelled_by_whoever_cancels_all_tasks_is_asked_for_again(db: SQLiteDatabase) -> None:
    async with held_writer(db) as let_go:
        (waiting,) = await waiting_functions(db, 1)
        (share,) = [task for task in asyncio.all_tasks() if task.get_name() == "app.db/write:share"]
        share.cancel()
        await asyncio.gather(share, return_exceptions=True)
        await until_waiting(db, 1)
        let_go()
        assert await waiting == 1


async def test_the_same_with_no_limit_to_the_waiting(database: Path) -> None:
    async with SQLiteDatabase(database, acquisition_timeout=None) as db, held_writer(db) as let_go:
        (waiting,) = await waiting_functions(db, 1)
        (share,) = [task for task in asyncio.all_tasks() if task.get_name() == "app.db/write:share"]
        share.cancel()
        await asyncio.gather(share, return_exceptions=True)
        await until_waiting(db, 1)
        let_go()
        assert await waiting == 1


async def test_who_came_later_than_the_share_has_its_whole_time(database: Path, recorder: Recorder) -> None:
    async with SQLiteDatabase(database, acquisition_timeout=0.2, subscribers=[recorder]) as db, held_writer(db) as go:
        shares, patient = shares_of(db), asyncio.Event()

        async def member(deadline: float) -> aiosqlite.Connection:
            async with shares.one(deadline, None) as connection:
                patient.set()
                return connection

        early = asyncio.create_task(member(time.monotonic() + 0.2))
        await until_waiting(db, 1)
        late = asyncio.create_task(member(time.monotonic() + 60))
        await until_waiting(db, 2)
        with pytest.raises(PoolConnectionAcquireTimeoutError):
            await early
        await until_waiting(db, 1)
        go()
        await late
        assert patient.is_set()
    assert len(recorder.of(AcquireTimedOut)) == 1


async def test_who_joins_again_waits_no_longer_than_its_own_time(database: Path, recorder: Recorder) -> None:
    async with SQLiteDatabase(database, acquisition_timeout=60, subscribers=[recorder]) as db, held_writer(db):
        shares = shares_of(db)

        async def member(deadline: float) -> None:
            async with shares.one(deadline, "late"):
                raise AssertionError("nobody let go")

        waiting = asyncio.create_task(member(time.monotonic() + 0.2))
        await until_waiting(db, 1)
        (share,) = [task for task in asyncio.all_tasks() if task.get_name() == "app.db/write:share"]
        share.cancel()  # it asks again, with what is left of its time
        with pytest.raises(PoolConnectionAcquireTimeoutError) as failed:
            await waiting
        assert failed.value.waited >= 0.2
        (told,) = recorder.of(AcquireTimedOut)
        assert told.label == "late"
    assert db.writer.stats().waiting == 0


async def test_a_share_can_be_joined_for_a_moment_only(db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiosqlitepool.database.pipeline._JOINABLE", 0.0)
    acquired = len([event async for event in _acquired_by(db, 3)])
    assert acquired == 3


async def _acquired_by(db: SQLiteDatabase, count: int) -> Any:
    told: list[ConnectionAcquired] = []
    detach = db.writer.events.subscribe(ConnectionAcquired, told.append)
    shares = shares_of(db)
    for _ in range(count):
        async with shares.one(time.monotonic() + 60, None):
            pass
    detach()
    for event in told:
        yield event


async def test_what_failed_is_not_joined(db: SQLiteDatabase) -> None:
    shares = shares_of(db)
    with pytest.raises(KeyError):
        async with shares.one(time.monotonic() + 60, None):
            raise KeyError
    async with shares.one(time.monotonic() + 60, None) as connection:
        assert not connection.in_transaction


async def test_a_share_that_is_over_keeps_the_context_of_none_of_its_members(database: Path) -> None:
    class Request:
        pass

    current = ContextVar[Request]("current")

    async def serve(db: SQLiteDatabase) -> weakref.ref[Request]:
        request = Request()
        current.set(request)
        await db.run_write(add, "a")
        return weakref.ref(request)

    async with SQLiteDatabase(database) as db:  # with no subscriber, who may keep events and their contexts
        async with held_writer(db) as let_go:
            serving = asyncio.create_task(serve(db))
            await until_waiting(db, 1)
            let_go()
            request = await serving
        del serving
        await db.run_write(add, "b")  # the worker has nothing of it any more either
        async with asyncio.timeout(10):
            while request() is not None:
                await asyncio.sleep(0)
                gc.collect()


async def test_whoever_wakes_out_of_turn_waits_for_those_who_came_before(db: SQLiteDatabase) -> None:
    share, earlier, later = _Share(asyncio.get_running_loop()), Queued(0.0, None), Queued(0.0, None)
    share.asleep[earlier] = None
    async with db.read() as connection:
        share.lent.set_result(connection)
        ready = asyncio.create_task(Shares._ready(share, later, None))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not ready.done()
        del share.asleep[earlier]
        assert await ready
    assert not share.asleep
