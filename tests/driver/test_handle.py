from __future__ import annotations

import abc
import asyncio
import contextlib
import contextvars
import copy
import functools
import gc
import sqlite3
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiosqlite
import pytest

from aiosqlitepool import PoolUsageError, SQLiteConnectionPool, SQLiteDatabase
from aiosqlitepool.driver import Handle, guarded
from aiosqlitepool.driver.completions import Completions
from aiosqlitepool.events import ConnectionReleased, LeakSuspected, RolledBackOnReturn
from aiosqlitepool.testing import Recorder

from ..support.files import notes
from ..support.stub import settle
from ..support.worker import HASH, adapter_of, busy_worker, native_of, until_workers_are

Pool = SQLiteConnectionPool[aiosqlite.Connection]

# For waits that must end; only a hang reaches it.
PATIENCE = 60

REFUSED = "this connection went back to the pool; acquire one to go on"


class Own(aiosqlite.Connection):
    """A class of the user's own: everything that such a class may have."""

    default = "of the class"
    registered: list[str] = []  # noqa: RUF012 - shared on purpose
    tag: str
    __slots__ = ("slot",)

    async def texts(self) -> list[str]:
        return [text for (text,) in await self.execute_fetchall("SELECT text FROM note ORDER BY id")]

    def tagged(self) -> str:
        return self.tag

    def retag(self, tag: str) -> None:
        self.tag = tag

    @property
    def shouted(self) -> str:
        return self.tag.upper()

    @shouted.setter
    def shouted(self, value: str) -> None:
        self.tag = value.lower()

    @functools.cached_property
    def length(self) -> int:
        return len(self.tag)

    @classmethod
    def defaults(cls) -> str:
        return cls.default


def pool_on(
    database: Path,
    size: int = 1,
    kind: type[aiosqlite.Connection] = Own,
    made: list[aiosqlite.Connection] | None = None,
    **settings: Any,
) -> Pool:
    """A pool whose factory sets the attribute `tag`; `made` gets the objects of the factory."""

    async def connect() -> aiosqlite.Connection:
        connection = await kind(lambda: sqlite3.connect(database), 64)
        connection.tag = "of the factory"  # type: ignore[attr-defined]
        if made is not None:
            made.append(connection)
        return connection

    return SQLiteConnectionPool(connect, size, idle_timeout=None, **settings)


async def insert(connection: aiosqlite.Connection, text: str) -> None:
    await connection.execute("INSERT INTO note (text) VALUES (?)", (text,))


async def texts(connection: aiosqlite.Connection) -> list[str]:
    return [text for (text,) in await connection.execute_fetchall("SELECT text FROM note ORDER BY id")]


# -- a handle whose lease has ended


class Stale(NamedTuple):
    """What a lease leaves in the hands of a program."""

    pool: Pool
    handle: Any
    cursor: aiosqlite.Cursor


Attempt = Callable[[Stale], Awaitable[None]]


async def leased(pool: Pool, connection: aiosqlite.Connection) -> Stale:
    return Stale(pool, connection, await connection.execute("SELECT 1 UNION ALL SELECT 2"))


async def once(pool: Pool) -> Stale:
    async with pool.connection() as connection:
        return await leased(pool, connection)


@contextlib.asynccontextmanager
async def held_by_another_task(pool: Pool) -> AsyncIterator[aiosqlite.Connection]:
    """Another task holds the connection, in the middle of a transaction that it commits at the end."""
    lent: asyncio.Future[aiosqlite.Connection] = asyncio.get_running_loop().create_future()
    finish = asyncio.Event()

    async def hold() -> None:
        async with pool.connection(label="the other") as connection:
            connection.row_factory = sqlite3.Row
            connection.text_factory = bytes
            connection.tag = "the other's"  # type: ignore[attr-defined]
            await insert(connection, "the other's")
            changes, isolation_level = connection.total_changes, connection.isolation_level
            lent.set_result(connection)
            await finish.wait()
            assert connection.in_transaction
            assert connection.total_changes == changes
            assert (connection.row_factory, connection.text_factory) == (sqlite3.Row, bytes)
            assert connection.isolation_level == isolation_level
            assert connection.tag == "the other's"  # type: ignore[attr-defined]
            assert not hasattr(connection, "unknown")
            (row,) = await connection.execute_fetchall("SELECT text FROM note ORDER BY id DESC LIMIT 1")
            assert row["text"] == b"the other's"
            await connection.commit()

    holder = asyncio.create_task(hold())
    try:
        async with asyncio.timeout(PATIENCE):
            while not lent.done() and not holder.done():  # the former is never done if the latter has failed
                await asyncio.sleep(0)
        yield lent.result()
    finally:
        finish.set()
        await holder


async def in_the_former_task(pool: Pool, attempt: Attempt) -> None:
    stale = await once(pool)
    async with held_by_another_task(pool):
        await attempt(stale)


async def in_a_task_created_inside_the_block(pool: Pool, attempt: Attempt) -> None:
    ended = asyncio.Event()

    async def late(stale: Stale) -> None:
        await ended.wait()
        await attempt(stale)

    async with pool.connection() as connection:
        task = asyncio.create_task(late(await leased(pool, connection)))
    async with held_by_another_task(pool):
        ended.set()
        await task


async def in_a_task_started_before_the_block(pool: Pool, attempt: Attempt) -> None:
    queue: asyncio.Queue[Stale] = asyncio.Queue()

    async def late() -> None:
        await attempt(await queue.get())

    task = asyncio.create_task(late())
    await asyncio.sleep(0)
    stale = await once(pool)
    async with held_by_another_task(pool):
        await queue.put(stale)
        await task


async def in_a_task_with_an_empty_context(pool: Pool, attempt: Attempt) -> None:
    async def late() -> None:
        await attempt(stale)

    stale = await once(pool)
    async with held_by_another_task(pool):
        await asyncio.get_running_loop().create_task(late(), context=contextvars.Context())


async def in_a_task_created_in_an_empty_context(pool: Pool, attempt: Attempt) -> None:
    stale = await once(pool)
    async with held_by_another_task(pool):
        await contextvars.Context().run(asyncio.ensure_future, attempt(stale))


async def after_twenty_releases_of_others(pool: Pool, attempt: Attempt) -> None:
    stale = await once(pool)
    for _ in range(20):
        await asyncio.create_task(once(pool))
    async with held_by_another_task(pool):
        await attempt(stale)


async def in_the_acquiring_task_when_another_released_it(pool: Pool, attempt: Attempt) -> None:
    connection = await pool.acquire()
    stale = await leased(pool, connection)
    await asyncio.create_task(pool.release(connection))
    async with held_by_another_task(pool):
        await attempt(stale)


async def in_the_releasing_task_when_another_acquired_it(pool: Pool, attempt: Attempt) -> None:
    connection = await asyncio.create_task(pool.acquire())
    stale = await leased(pool, connection)
    await pool.release(connection)
    async with held_by_another_task(pool):
        await attempt(stale)


async def when_the_task_that_acquired_it_has_ended(pool: Pool, attempt: Attempt) -> None:
    # On Python 3.11, wait_for() acquires in a task of its own.
    connection = await asyncio.wait_for(pool.acquire(), PATIENCE)
    stale = await leased(pool, connection)
    await pool.release(connection)
    async with held_by_another_task(pool):
        await attempt(stale)


async def when_the_present_holder_got_it_by_wait_for(pool: Pool, attempt: Attempt) -> None:
    stale = await once(pool)
    connection = await asyncio.wait_for(pool.acquire(), PATIENCE)
    await insert(connection, "the other's")
    await attempt(stale)
    await connection.commit()
    await pool.release(connection)


async def when_the_same_task_holds_it_again(pool: Pool, attempt: Attempt) -> None:
    stale = await once(pool)
    async with pool.connection() as connection:
        await insert(connection, "the other's")
        await attempt(stale)
        await connection.commit()


WAYS: list[Callable[[Pool, Attempt], Awaitable[None]]] = [
    in_the_former_task,
    in_a_task_created_inside_the_block,
    in_a_task_started_before_the_block,
    in_a_task_with_an_empty_context,
    in_a_task_created_in_an_empty_context,
    after_twenty_releases_of_others,
    in_the_acquiring_task_when_another_released_it,
    in_the_releasing_task_when_another_acquired_it,
    when_the_task_that_acquired_it_has_ended,
    when_the_present_holder_got_it_by_wait_for,
    when_the_same_task_holds_it_again,
]


def setting(name: str, value: object) -> Callable[[Stale], object]:
    return lambda stale: setattr(stale.handle, name, value)


USES: dict[str, Callable[[Stale], object]] = {
    "execute": lambda stale: stale.handle.execute("SELECT 1"),
    "execute_fetchall": lambda stale: stale.handle.execute_fetchall("SELECT 1"),
    "executescript": lambda stale: stale.handle.executescript("DELETE FROM note"),
    "cursor": lambda stale: stale.handle.cursor(),
    "commit": lambda stale: stale.handle.commit(),
    "rollback": lambda stale: stale.handle.rollback(),
    "fetchone of an old cursor": lambda stale: stale.cursor.fetchone(),
    "fetchall of an old cursor": lambda stale: stale.cursor.fetchall(),
    "execute of an old cursor": lambda stale: stale.cursor.execute("SELECT 1"),
    "interrupt": lambda stale: stale.handle.interrupt(),
    "close": lambda stale: stale.handle.close(),
    "stop": lambda stale: stale.handle.stop(),
    "row_factory =": setting("row_factory", tuple),
    "text_factory =": setting("text_factory", str),
    "isolation_level =": setting("isolation_level", "EXCLUSIVE"),
    "row_factory": lambda stale: stale.handle.row_factory,
    "in_transaction": lambda stale: stale.handle.in_transaction,
    "total_changes": lambda stale: stale.handle.total_changes,
    "an attribute of the factory": lambda stale: stale.handle.tag,
    "an attribute of the factory =": setting("tag", "stale"),
    "an unknown attribute =": setting("unknown", "stale"),
    "a slot =": setting("slot", "stale"),
    "a default of the class": lambda stale: stale.handle.default,
    "a default of the class =": setting("default", "stale"),
    "del": lambda stale: delattr(stale.handle, "tag"),
    "a method of the user's class": lambda stale: stale.handle.texts(),
    "release": lambda stale: stale.pool.release(stale.handle),
}


async def use_of(use: Callable[[Stale], object], stale: Stale) -> None:
    result = use(stale)
    if isinstance(result, Awaitable):
        await result


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])
async def test_a_stale_handle_is_refused_and_the_present_holder_notices_nothing(
    database: Path, way: Callable[[Pool, Attempt], Awaitable[None]], use: Callable[[Stale], object]
) -> None:
    attempts: list[Stale] = []

    async def attempt(stale: Stale) -> None:
        attempts.append(stale)
        with pytest.raises(PoolUsageError, match=f"{REFUSED}|is not in use in pool"):
            await use_of(use, stale)

    async with pool_on(database) as pool:
        await way(pool, attempt)
        assert len(attempts) == 1
        async with pool.connection() as connection:
            assert native_of(connection) is native_of(attempts[0].handle)  # not closed, and not replaced
    assert notes(database) == ["the other's"]


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_a_stale_handle_is_refused_while_its_connection_is_idle(
    database: Path, use: Callable[[Stale], object]
) -> None:
    async with pool_on(database) as pool:
        stale = await once(pool)
        with pytest.raises(PoolUsageError, match=f"{REFUSED}|is not in use in pool"):
            await use_of(use, stale)
        async with pool.connection() as connection:
            assert await texts(connection) == []
            assert native_of(connection) is native_of(stale.handle)


@pytest.mark.parametrize("use", [use for name, use in USES.items() if name != "release"])
async def test_a_handle_of_a_pool_that_was_closed_is_refused(database: Path, use: Callable[[Stale], object]) -> None:
    async with pool_on(database) as pool:
        stale = await once(pool)
    with pytest.raises(PoolUsageError, match=REFUSED):
        await use_of(use, stale)


async def test_a_stale_handle_is_refused_in_another_thread_and_loop(database: Path) -> None:
    async with pool_on(database) as pool:
        stale = await once(pool)

        async def attempt() -> None:
            with pytest.raises(PoolUsageError, match=REFUSED):
                await stale.handle.commit()

        async with held_by_another_task(pool):
            await asyncio.to_thread(asyncio.run, attempt())
    assert notes(database) == ["the other's"]


async def test_a_task_that_released_its_connection_is_refused_though_it_holds_another(database: Path) -> None:
    async with pool_on(database, 2) as pool:
        async with pool.connection() as first, pool.connection() as second:
            pass
        async with held_by_another_task(pool), pool.connection() as own:
            for stale in (first, second):
                with pytest.raises(PoolUsageError, match=REFUSED):
                    await stale.commit()
            await own.execute_fetchall("SELECT 1")
    assert notes(database) == ["the other's"]


async def test_a_second_release_does_not_take_the_connection_from_its_present_holder(database: Path) -> None:
    async with pool_on(database) as pool:
        connection = await pool.acquire()
        await pool.release(connection)
        async with held_by_another_task(pool):
            with pytest.raises(PoolUsageError, match="released twice"):
                await pool.release(connection)
            assert [holder.label for holder in pool.holders()] == ["the other"]
    assert notes(database) == ["the other's"]


@pytest.mark.parametrize("half_read", [False, True])
async def test_closing_an_old_cursor_is_silent(database: Path, half_read: bool) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            cursor = await connection.execute("SELECT 1 UNION ALL SELECT 2")
            if half_read:
                await cursor.fetchone()
        await cursor.close()
        async with held_by_another_task(pool):
            await cursor.close()
        async with cursor:  # as left at the end of a block inside
            pass
    await cursor.close()


async def test_what_was_sent_and_not_begun_when_the_lease_ended_never_runs_for_the_next_holder(database: Path) -> None:
    async with pool_on(database) as pool:
        lease = pool.connection()
        connection = await lease.__aenter__()
        late = asyncio.create_task(insert(connection, "too late"))
        await asyncio.sleep(0)
        await lease.__aexit__(None, None, None)
        async with pool.connection() as again:
            await again.commit()
        await asyncio.wait({late})
        late.exception()
    assert notes(database) == []


# -- a handle whose lease has not ended


METHODS: dict[str, Callable[[aiosqlite.Connection], Awaitable[Any]]] = {
    "interrupt": lambda connection: connection.interrupt(),
    "stop": lambda connection: connection.stop() or asyncio.sleep(0),
    "close": lambda connection: connection.close(),
    "commit": lambda connection: connection.commit(),
}


@pytest.mark.parametrize("in_another_task", [False, True])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
async def test_a_holder_may_do_all_of_it_and_let_any_task_do_it(
    database: Path, method: Callable[[aiosqlite.Connection], Awaitable[Any]], in_another_task: bool
) -> None:
    async def use(connection: aiosqlite.Connection) -> None:
        await method(connection)

    async with pool_on(database) as pool:
        for _ in range(2):
            async with pool.connection() as connection:
                await (asyncio.create_task(use(connection)) if in_another_task else use(connection))
        async with pool.connection() as connection:
            assert await texts(connection) == []


async def test_tasks_may_share_the_connection_of_another(database: Path) -> None:
    async with pool_on(database) as pool:
        await once(pool)
        async with held_by_another_task(pool) as shared:
            shared.text_factory = bytes
            requests = [asyncio.create_task(shared.execute_fetchall("SELECT text FROM note")) for _ in range(3)]
            for rows in await asyncio.gather(*requests):
                assert [tuple(row) for row in rows] == [(b"the other's",)]


async def test_a_task_that_had_the_connection_before_may_use_the_handle_of_its_present_holder(database: Path) -> None:
    """Bug: it was refused, as a task that had released the connection."""
    async with pool_on(database) as pool:
        connection = await pool.acquire()
        await pool.release(connection)
        taken = await asyncio.create_task(pool.acquire())
        await insert(taken, "allowed")
        await taken.commit()
        await pool.release(taken)
        async with held_by_another_task(pool) as shared:
            await shared.execute_fetchall("SELECT 1")
    assert notes(database) == ["allowed", "the other's"]


async def test_one_task_may_acquire_for_another_again_and_again(database: Path) -> None:
    async with pool_on(database) as pool:
        await once(pool)
        queue: asyncio.Queue[aiosqlite.Connection | None] = asyncio.Queue(1)

        async def provide() -> None:
            for _ in range(4):
                await queue.put(await pool.acquire())
            await queue.put(None)

        async def consume() -> None:
            while (connection := await queue.get()) is not None:
                await insert(connection, "handed over")
                await connection.commit()
                await pool.release(connection)

        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(provide(), consume())
    assert notes(database) == ["handed over"] * 4


async def test_a_task_created_inside_a_block_may_acquire_for_itself_when_that_has_ended(database: Path) -> None:
    ended = asyncio.Event()

    async def work() -> None:
        await ended.wait()
        connection = await asyncio.wait_for(pool.acquire(), PATIENCE)
        await insert(connection, "its own")
        await connection.commit()
        await pool.release(connection)

    async with pool_on(database) as pool:
        async with pool.connection():
            task = asyncio.create_task(work())
        ended.set()
        await task
    assert notes(database) == ["its own"]


async def test_a_holder_sees_everything_of_its_connection(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        assert (connection.in_transaction, connection.total_changes, connection.isolation_level) == (False, 0, "")
        connection.isolation_level = "IMMEDIATE"
        await insert(connection, "a")
        assert (connection.in_transaction, connection.total_changes) == (True, 1)
        assert connection.isolation_level == "IMMEDIATE"
        await connection.rollback()


async def test_a_handle_has_the_state_that_methods_of_aiosqlite_read(database: Path) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            assert connection._connection is native_of(connection)
            assert connection._running
        assert connection._connection is None
        assert not connection._running


async def test_a_holder_that_closed_its_connection_gets_the_error_of_aiosqlite(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        cursor = await connection.execute("SELECT 1")
        await connection.close()
        for use in (lambda: connection.execute("SELECT 1"), cursor.fetchone, connection.commit):
            with pytest.raises(ValueError, match=r"[Cc]losed|no active connection"):
                await use()
        for name in ("in_transaction", "total_changes", "row_factory"):
            with pytest.raises(ValueError, match="no active connection"):
                getattr(connection, name)
        await connection.close()
        assert connection.stop() is None
        await connection.interrupt()


async def test_a_use_while_the_connection_closes_gets_the_error_of_sqlite(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        cursor = await connection.execute("SELECT 1")
        with busy_worker(connection) as wake_up:
            closing = asyncio.create_task(connection.close())
            await settle()
            for use in (lambda: connection.execute("SELECT 1"), cursor.fetchall, connection.commit):
                with pytest.raises(sqlite3.ProgrammingError, match="Cannot operate on a closed database"):
                    await use()
            wake_up()
            await closing
        with pytest.raises(ValueError, match="Connection closed"):
            await cursor.fetchall()


# -- what belongs to a lease, and what to the connection


async def test_two_handles_of_one_connection_are_different_objects(database: Path) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as first:
            pass
        async with pool.connection() as second:
            assert first is not second
            assert first != second
            assert len({first, second}) == 2
            assert native_of(first) is native_of(second)


async def test_a_handle_is_an_instance_of_the_class_of_the_factory(database: Path) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as first:
            assert isinstance(first, Own)
            assert isinstance(first, aiosqlite.Connection)
        async with pool.connection() as second:
            assert type(first) is type(second)
            assert type(second).__name__ == "OwnHandle"


async def test_factories_of_rows_and_texts_end_with_the_lease(database: Path) -> None:
    made: list[aiosqlite.Connection] = []

    async def connect() -> aiosqlite.Connection:
        connection = await aiosqlite.connect(database)
        connection.row_factory = sqlite3.Row
        connection.text_factory = bytes
        made.append(connection)
        return connection

    async with SQLiteConnectionPool(connect, 1) as pool:
        for dirty in (False, True, False):
            async with pool.connection() as connection:
                assert (connection.row_factory, connection.text_factory) == (sqlite3.Row, bytes)
                connection.row_factory, connection.text_factory = None, str
                assert list(await connection.execute_fetchall("SELECT 'a'")) == [("a",)]
                if dirty:
                    await insert(connection, "never committed")
    assert len(made) == 1


async def test_a_row_factory_that_was_set_while_a_statement_ran_ends_with_the_lease(database: Path) -> None:
    async with pool_on(database) as pool:
        lease = pool.connection()
        connection = await lease.__aenter__()
        running = asyncio.create_task(connection.execute_fetchall("SELECT 1"))
        await asyncio.sleep(0)
        connection.row_factory = sqlite3.Row
        await lease.__aexit__(None, None, None)
        await asyncio.wait({running})
        running.exception()
        async with pool.connection() as again:
            assert list(await again.execute_fetchall("SELECT 1")) == [(1,)]


async def test_attributes_of_the_factory_are_read_and_unknown_ones_stay_for_later_leases(database: Path) -> None:
    made: list[Any] = []
    async with pool_on(database, made=made) as pool:
        async with pool.connection() as first:
            assert first.tag == "of the factory"  # type: ignore[attr-defined]
            first.unknown = "of a block"  # type: ignore[attr-defined]
            first.tag = "changed"  # type: ignore[attr-defined]
        async with pool.connection() as second:
            assert second.unknown == "of a block"  # type: ignore[attr-defined]
            assert second.tag == "changed"  # type: ignore[attr-defined]
            del second.unknown  # type: ignore[attr-defined]
            with pytest.raises(AttributeError, match="unknown"):
                second.unknown  # type: ignore[attr-defined]  # noqa: B018
            with pytest.raises(AttributeError, match="unknown"):
                del second.unknown  # type: ignore[attr-defined]
        assert made[0].tag == "changed"


async def test_a_method_that_a_block_replaces_is_replaced_for_that_block(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            original = connection.commit
            with monkeypatch.context() as patch:
                patch.setattr(connection, "commit", None)
                assert connection.commit is None
            assert connection.commit == original
            connection.commit = None
            del connection.commit
            await connection.commit()
            connection.commit = None
        async with pool.connection() as again:
            await again.commit()


async def test_the_object_of_the_factory_cannot_be_used_once_the_pool_has_it(database: Path) -> None:
    made: list[aiosqlite.Connection] = []
    async with pool_on(database, made=made) as pool:
        async with pool.connection() as connection:
            (raw,) = made
            for use in (lambda: raw.execute("SELECT 1"), raw.commit, raw.rollback, raw.interrupt, raw.cursor):
                with pytest.raises(ValueError, match=r"[Cc]losed|no active connection"):
                    await use()
            for name in ("in_transaction", "total_changes", "row_factory", "isolation_level"):
                with pytest.raises(ValueError, match="no active connection"):
                    getattr(raw, name)
            with pytest.raises(ValueError, match="no active connection"):
                raw.row_factory = None
            await raw.close()
            (getattr(raw, "stop", None) or raw._stop_running)()  # type: ignore[attr-defined]  # before 0.22.1
            await insert(connection, "kept")
            await connection.commit()
        async with pool.connection() as again:
            assert native_of(again) is native_of(connection)
            assert await texts(again) == ["kept"]


async def test_a_handle_that_is_awaited_or_entered_says_that_its_pool_has_opened_it(database: Path) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            with pytest.raises(PoolUsageError, match="is open already, and its pool closes it: use it without `await`"):
                await connection
            with pytest.raises(PoolUsageError, match="is open already.*The block of pool.connection"):
                async with connection:
                    pass
            assert await texts(connection) == []
        with pytest.raises(PoolUsageError, match=REFUSED):
            await connection


# -- classes of the user's own


async def test_a_class_of_the_users_own_may_give_async_with_a_meaning_of_its_own(database: Path) -> None:
    class Committing(aiosqlite.Connection):
        async def __aenter__(self) -> Committing:
            return self

        async def __aexit__(self, *_: object) -> None:
            await self.commit()

    async with SQLiteConnectionPool(lambda: Committing(lambda: sqlite3.connect(database), 64), 1) as pool:
        async with pool.connection() as connection, connection:
            await insert(connection, "kept")
        async with pool.connection() as connection:
            assert await texts(connection) == ["kept"]


async def test_a_class_of_the_users_own_keeps_its_methods(database: Path) -> None:
    async with pool_on(database) as pool:
        for _ in range(2):
            async with pool.connection() as connection:
                assert isinstance(connection, Own)
                assert await connection.texts() == []
                assert (connection.tagged(), connection.shouted) == ("of the factory", "OF THE FACTORY")
                assert connection.length == len("of the factory")
                assert connection.defaults() == "of the class"
        async with pool.connection() as connection:
            assert isinstance(connection, Own)
            connection.retag("once")
            assert connection.tagged() == "once"
            connection.shouted = "TWICE"
        async with pool.connection() as connection:
            assert isinstance(connection, Own)
            assert connection.tag == "twice"


async def test_slots_and_defaults_of_a_class_are_those_of_the_factorys_object(database: Path) -> None:
    """Bug: a default of the class hid what the factory had set, and a slot was that of one lease."""
    made: list[Any] = []

    async def connect() -> Own:
        connection: Any = await Own(lambda: sqlite3.connect(database), 64)
        connection.default, connection.slot = "of the factory", 1
        made.append(connection)
        return connection  # type: ignore[no-any-return]

    async with SQLiteConnectionPool(connect, 1) as pool:
        async with pool.connection() as first:
            assert (first.default, first.slot) == ("of the factory", 1)  # type: ignore[attr-defined]
            first.default, first.slot = "of a block", 2  # type: ignore[attr-defined]
            assert first.registered is Own.registered
        async with pool.connection() as second:
            assert (second.default, second.slot) == ("of a block", 2)  # type: ignore[attr-defined]
            assert type(second).default == "of the class"
            del second.default, second.slot  # type: ignore[attr-defined]
        async with pool.connection() as third:
            assert third.default == "of the class"
            with pytest.raises(AttributeError, match="slot"):
                third.slot  # type: ignore[attr-defined]  # noqa: B018
            with pytest.raises(AttributeError):
                del third.slot  # type: ignore[attr-defined]


async def test_attribute_methods_of_a_class_are_called_and_see_the_handle(database: Path) -> None:
    """Bug: `__getattr__` was called on the factory's object, which is spent, and `__setattr__` not at all."""
    seen: list[str] = []

    class Dynamic(aiosqlite.Connection):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("native_"):
                return getattr(self._conn, name.removeprefix("native_"))
            raise AttributeError(name)

        def __setattr__(self, name: str, value: Any) -> None:
            seen.append(name)
            super().__setattr__(name, value)

    async with pool_on(database, kind=Dynamic) as pool:
        async with pool.connection() as connection:
            seen.clear()
            assert connection.native_total_changes == 0  # type: ignore[attr-defined]
            with pytest.raises(AttributeError, match="missing"):
                connection.missing  # type: ignore[attr-defined]  # noqa: B018
            assert seen == []
            connection.row_factory = None
            connection.unknown = 1  # type: ignore[attr-defined]
            assert seen == ["row_factory", "unknown"]
        with pytest.raises(PoolUsageError, match=REFUSED):
            connection.native_total_changes  # type: ignore[attr-defined]  # noqa: B018


async def test_a_property_whose_attribute_is_missing_is_asked_once_and_says_so(database: Path) -> None:
    asked: list[type] = []

    class Lazy(aiosqlite.Connection):
        @property
        def lazy(self) -> Any:
            asked.append(type(self))
            return self.missing  # type: ignore[attr-defined]

    async with pool_on(database, kind=Lazy) as pool, pool.connection() as connection:
        with pytest.raises(AttributeError, match="lazy|missing"):
            connection.lazy  # type: ignore[attr-defined]  # noqa: B018
        assert asked == [type(connection)]


async def test_handles_of_a_class_that_cannot_be_hashed_and_is_equal_to_everything_are_told_apart(
    database: Path,
) -> None:
    class Equal(aiosqlite.Connection):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = HASH

        def __bool__(self) -> bool:
            raise RuntimeError("ask for what you mean")

    async with pool_on(database, 2, kind=Equal) as pool:
        first, second = await pool.acquire(), await pool.acquire()
        await pool.release(first)
        with pytest.raises(PoolUsageError, match="released twice"):
            await pool.release(first)
        with pytest.raises(PoolUsageError, match=REFUSED):
            await first.commit()
        await insert(second, "second")
        await second.commit()
        await pool.release(second)
    assert notes(database) == ["second"]


async def test_an_abstract_generic_class_with_a_mixin_can_be_lent(database: Path) -> None:
    class Mixin:
        mixed = "in"

    class Abstract(aiosqlite.Connection, Mixin, abc.ABC):
        @abc.abstractmethod
        def name(self) -> str: ...

    class Concrete(Abstract):
        def name(self) -> str:
            return f"{self.mixed} {type(self).mixed}"

    async with pool_on(database, kind=Concrete) as pool, pool.connection() as connection:
        assert isinstance(connection, Concrete)
        assert connection.name() == "in in"


async def test_a_class_may_have_attributes_with_the_names_of_the_pools_own(database: Path) -> None:
    class Named(aiosqlite.Connection):
        _lease = "of the class"

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._adapter = "of the object"

        def names(self) -> tuple[str, str]:
            return self._lease, self._adapter

    async with pool_on(database, kind=Named) as pool, pool.connection() as connection:
        assert isinstance(connection, Named)
        assert connection.names() == ("of the class", "of the object")


async def test_a_handle_cannot_be_copied(database: Path) -> None:
    """A copy that is collected would end the lease of the original."""
    async with pool_on(database) as pool, pool.connection() as connection:
        for copied in (copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be copied"):
                copied(connection)
        assert await texts(connection) == []


# -- leases that are forgotten


async def lent_again(pool: Pool) -> aiosqlite.Connection:
    """The next holder's connection, once the forgotten one has come back."""
    gc.collect()
    return await asyncio.wait_for(pool.acquire(), PATIENCE)


async def drop(pool: Pool) -> weakref.ref[aiosqlite.Connection]:
    connection = await pool.acquire(label="forgetful")
    return weakref.ref(connection)


async def drop_in_a_transaction(pool: Pool) -> None:
    connection = await pool.acquire(label="forgetful")
    await insert(connection, "never committed")


async def drop_half_read(pool: Pool) -> None:
    connection = await pool.acquire(label="forgetful")
    await (await connection.execute("SELECT 1 UNION ALL SELECT 2")).fetchone()


async def drop_in_a_cycle(pool: Pool) -> None:
    connection: Any = await pool.acquire(label="forgetful")
    cycle: list[Any] = [connection]
    cycle.append(cycle)


async def drop_in_another_thread(pool: Pool) -> None:
    box = [await pool.acquire(label="forgetful")]
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join(PATIENCE)


async def drop_in_a_cycle_that_another_thread_collects(pool: Pool) -> None:
    gc.disable()
    try:
        await drop_in_a_cycle(pool)
        thread = threading.Thread(target=gc.collect)
        thread.start()
        thread.join(PATIENCE)
    finally:
        gc.enable()


DROPS = [
    drop,
    drop_in_a_transaction,
    drop_half_read,
    drop_in_a_cycle,
    drop_in_another_thread,
    drop_in_a_cycle_that_another_thread_collects,
]


@pytest.mark.parametrize("forget", DROPS)
async def test_a_forgotten_lease_gives_its_slot_back_and_is_emitted_as_a_leak(
    database: Path, recorder: Recorder, forget: Callable[[Pool], Awaitable[Any]]
) -> None:
    async with pool_on(database, subscribers=[recorder]) as pool:
        await forget(pool)
        again = await lent_again(pool)
        assert await texts(again) == []
        await insert(again, "kept")
        await again.commit()
        (leak,) = recorder.of(LeakSuspected)
        assert leak.holder.label == "forgetful"
        assert [event.label for event in recorder.of(ConnectionReleased)] == ["forgetful"]
        await pool.release(again)
        assert len(recorder.of(LeakSuspected)) == 1
    assert notes(database) == ["kept"]


async def test_a_lease_that_was_lost_by_an_exception_comes_back_although_its_task_keeps_that(
    database: Path, recorder: Recorder
) -> None:
    async def fail() -> None:
        connection = await pool.acquire("forgetful")
        await connection.execute("SELECT * FROM nowhere")

    async with pool_on(database, subscribers=[recorder]) as pool:
        await asyncio.gather(asyncio.create_task(fail(), name="Brief"), return_exceptions=True)
        pool._housekeeper.sweep()  # when a caller has waited for long, or the lease has lasted for long
        gc.collect()
        await settle()
        assert pool.stats().used == 0
        (leak,) = recorder.of(LeakSuspected)
        assert (leak.holder.task, leak.holder.ended) == ("Brief", True)
        assert leak.holder.coroutine is not None
        assert leak.holder.coroutine.endswith("fail")


async def test_the_open_transaction_of_a_forgotten_lease_is_rolled_back(database: Path, recorder: Recorder) -> None:
    async with pool_on(database, subscribers=[recorder]) as pool:
        await drop_in_a_transaction(pool)
        again = await lent_again(pool)
        assert not again.in_transaction
        assert [event.cause for event in recorder.of(RolledBackOnReturn)] == ["transaction"]
        await pool.release(again)


async def test_a_lease_is_not_forgotten_while_anything_of_it_is_awaited(database: Path, recorder: Recorder) -> None:
    async with pool_on(database, subscribers=[recorder]) as pool:
        assert list(await (await pool.acquire()).execute_fetchall("SELECT 1")) == [(1,)]
        async with (await pool.acquire()).execute("SELECT 1 UNION ALL SELECT 2") as cursor:
            gc.collect()
            assert [row async for row in cursor] == [(1,), (2,)]
        del cursor
        again = await lent_again(pool)
        assert len(recorder.of(LeakSuspected)) == 2
        await pool.release(again)


async def test_a_block_without_a_name_for_its_connection_keeps_it_to_its_end(
    database: Path, recorder: Recorder
) -> None:
    async with pool_on(database, subscribers=[recorder]) as pool:
        async with pool.connection():
            gc.collect()
            await settle()
            assert pool.stats().used == 1
            assert len(pool.holders()) == 1
        await settle()
        assert pool.stats().idle == 1
    assert recorder.of(LeakSuspected) == []


async def test_a_handle_that_is_collected_after_its_lease_is_no_leak(database: Path, recorder: Recorder) -> None:
    async with pool_on(database, subscribers=[recorder]) as pool:
        connection = await pool.acquire()
        await pool.release(connection)
        async with pool.connection():
            del connection
            gc.collect()
            await settle()
            assert pool.stats().used == 1
    assert recorder.of(LeakSuspected) == []


async def test_a_lease_that_was_forgotten_and_then_closed_by_the_pool_is_closed_once(database: Path) -> None:
    pool = pool_on(database)
    async with pool:
        await drop(pool)
        gc.collect()
    await until_workers_are(0)
    assert pool.stats().size == 0


def test_a_lease_that_is_forgotten_after_its_loop_was_closed_does_no_harm(database: Path) -> None:
    pool = pool_on(database)
    connection = asyncio.run(pool.acquire())
    adapter = adapter_of(connection)
    del connection
    gc.collect()
    asyncio.run(pool.close())
    adapter._thread.join(PATIENCE)
    assert not adapter._thread.is_alive()


# -- contexts and memory


class Request:
    """What a program has in the context of a task while it serves."""


request_variable: contextvars.ContextVar[Request] = contextvars.ContextVar("request")


def request_here() -> weakref.ref[Request]:
    request = Request()
    request_variable.set(request)
    return weakref.ref(request)


async def is_gone(request: weakref.ref[Request]) -> bool:
    async with asyncio.timeout(PATIENCE):
        while request() is not None:  # the loop holds the task that woke this one; the worker is about to leave its job
            await asyncio.sleep(0.001)
            gc.collect()
    return True


async def test_the_worker_keeps_the_context_of_no_statement_that_it_has_run(database: Path) -> None:
    async def serve() -> weakref.ref[Request]:
        request = request_here()
        async with pool.connection() as connection:
            await connection.execute_fetchall("SELECT 1")
        return request

    async with pool_on(database) as pool:
        assert await is_gone(await asyncio.create_task(serve()))


async def test_the_worker_keeps_no_argument_of_a_statement_that_it_has_run(database: Path) -> None:
    async def serve() -> weakref.ref[Request]:
        request = Request()
        async with pool.connection() as connection:
            await connection._execute(lambda kept: None, request)  # type: ignore[no-untyped-call]
        return weakref.ref(request)

    async with pool_on(database) as pool:
        assert await is_gone(await serve())


@pytest.mark.parametrize("idle_timeout", [None, 1000.0], ids=["no timer", "a timer"])
async def test_an_idle_connection_keeps_no_context_alive(database: Path, idle_timeout: float | None) -> None:
    async def serve() -> weakref.ref[Request]:
        request = request_here()
        async with pool.connection():
            pass
        return request

    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, idle_timeout=idle_timeout) as pool:
        assert await is_gone(await asyncio.create_task(serve()))


async def test_a_stale_handle_keeps_no_context_alive(database: Path) -> None:
    async def serve() -> tuple[aiosqlite.Connection, weakref.ref[Request]]:
        request = request_here()
        async with pool.connection() as connection:
            return connection, request

    async with pool_on(database) as pool:
        stale, request = await asyncio.create_task(serve())
        assert await is_gone(request)
        with pytest.raises(PoolUsageError, match=REFUSED):
            await stale.commit()


async def test_a_connection_that_was_closed_under_its_holder_keeps_no_context_alive(database: Path) -> None:
    async def forget_it() -> tuple[aiosqlite.Connection, weakref.ref[Request]]:
        request = request_here()
        return await pool.acquire(), request

    pool = pool_on(database)
    connection, request = await asyncio.create_task(forget_it())
    with pytest.warns(ResourceWarning):
        await pool.close(timeout=0)
    assert await is_gone(request)
    with pytest.raises(PoolUsageError, match=REFUSED):
        await connection.commit()


async def test_a_context_that_lives_on_keeps_no_connection_alive(database: Path) -> None:
    stop = asyncio.Event()
    made: list[weakref.ref[aiosqlite.Connection]] = []

    async def connect() -> aiosqlite.Connection:
        connection = await aiosqlite.connect(database)
        made.append(weakref.ref(connection))
        return connection

    async def websocket() -> None:
        async with SQLiteConnectionPool(connect, 1) as pool, pool.connection():
            pass
        await stop.wait()

    tasks = [asyncio.create_task(websocket()) for _ in range(3)]
    async with asyncio.timeout(PATIENCE):
        while len(made) < 3 or any(ref() is not None for ref in made):
            await asyncio.sleep(0.001)
            gc.collect()
    assert not any(task.done() for task in tasks)
    stop.set()
    await asyncio.gather(*tasks)


async def test_a_handle_is_freed_without_the_garbage_collector(database: Path) -> None:
    async with pool_on(database) as pool:
        gc.disable()
        try:
            async with pool.connection() as connection:
                handle = weakref.ref(connection)
                await texts(connection)
                del connection
            async with asyncio.timeout(PATIENCE):
                while handle() is not None:  # the worker is about to leave its last job
                    await asyncio.sleep(0.001)
        finally:
            gc.enable()


# -- pragmas of a database


class Sql(str):
    """SQL of a query builder."""

    __slots__ = ()


CHANGES: dict[str, Callable[[aiosqlite.Connection], Awaitable[Any]]] = {
    "execute": lambda connection: connection.execute("PRAGMA cache_size = 7"),
    "lower case": lambda connection: connection.execute("pragma cache_size = 7"),
    "execute_fetchall": lambda connection: connection.execute_fetchall("PRAGMA cache_size = 7"),
    "executescript": lambda connection: connection.executescript("SELECT 1; PRAGMA cache_size = 7"),
    "a class of strings": lambda connection: connection.execute(Sql("PRAGMA cache_size = 7")),
}


async def pragma(connection: aiosqlite.Connection, name: str) -> Any:
    ((value,),) = await connection.execute_fetchall(f"SELECT {name} FROM pragma_{name}")
    return value


@pytest.mark.parametrize(
    ("role", "change"),
    # In a block that writes, executescript() is an error: it commits.
    [("read", change) for change in CHANGES] + [("write", change) for change in CHANGES if change != "executescript"],
)
async def test_a_pragma_that_a_lease_of_a_database_changed_is_restored_at_its_end(
    tmp_path: Path, role: str, change: str
) -> None:
    async with SQLiteDatabase(tmp_path / "app.db", readers=1) as db:
        lease = getattr(db, role)
        async with lease() as connection:
            before, native = await pragma(connection, "cache_size"), native_of(connection)
            await CHANGES[change](connection)
            assert await pragma(connection, "cache_size") == 7
        async with lease() as again:
            assert native_of(again) is native
            assert await pragma(again, "cache_size") == before


async def test_foreign_keys_that_a_lease_of_a_database_switched_off_are_on_again_at_its_end(tmp_path: Path) -> None:
    async with SQLiteDatabase(tmp_path / "app.db", readers=1) as db:
        async with db.read() as connection:
            await connection.execute("PRAGMA foreign_keys = OFF")
            assert await pragma(connection, "foreign_keys") == 0
        async with db.read() as again:
            assert native_of(again) is native_of(connection)
            assert await pragma(again, "foreign_keys") == 1


async def test_foreign_keys_that_a_lease_of_the_writers_pool_switched_off_are_on_again_at_its_end(
    tmp_path: Path,
) -> None:
    async with SQLiteDatabase(tmp_path / "app.db") as db:
        async with db.writer.connection() as connection:
            await connection.execute("PRAGMA foreign_keys = OFF")
            assert await pragma(connection, "foreign_keys") == 0
        async with db.writer.connection() as again:
            assert native_of(again) is native_of(connection)
            assert await pragma(again, "foreign_keys") == 1


async def test_a_handle_is_what_a_database_lends(tmp_path: Path) -> None:
    async with SQLiteDatabase(tmp_path / "app.db") as db:
        async with db.write() as writer, db.read() as reader:
            assert isinstance(writer, Handle)
            assert isinstance(reader, Handle)
        for stale in (writer, reader):
            with pytest.raises(PoolUsageError, match=REFUSED):
                await stale.execute("SELECT 1")


async def test_a_holder_may_stop_its_connection_from_another_thread(database: Path) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1) as pool:
        async with pool.connection() as connection:
            assert await asyncio.to_thread(connection.stop) is None
        async with pool.connection() as again:
            assert await again.execute_fetchall("SELECT 1") == [(1,)]


async def test_on_one_core_no_statement_is_delayed(database: Path) -> None:
    limiter = Completions.of(asyncio.get_running_loop()).limiter
    limiter.limits = False
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 3) as pool:

        async def select() -> None:
            async with pool.connection() as connection:
                await connection.execute_fetchall("SELECT 1")

        await asyncio.gather(*(select() for _ in range(9)))
    assert not limiter._running


async def test_a_guard_is_asked_about_each_operation_of_a_handle_until_its_block_ends(database: Path) -> None:
    asked: list[str] = []
    async with SQLiteDatabase(database) as db, db.writer.connection() as connection:
        with guarded(connection, lambda fn, args, has_ended: asked.append(f"{fn.__name__} {has_ended}")):
            await connection.execute("SELECT 1")
            await connection.execute("BEGIN")
            await connection.commit()
        await connection.execute("SELECT 2")
    assert asked == ["execute True", "execute True", "commit False"]


def test_a_connection_of_another_driver_has_no_guard() -> None:
    with guarded(object(), lambda *_: None):
        pass


async def test_a_guard_is_that_of_its_lease_alone(database: Path) -> None:
    def guard(*_: object) -> None: ...

    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1) as pool:
        old = await pool.acquire()
        adapter = adapter_of(old)
        with contextlib.ExitStack() as stack:
            stack.enter_context(guarded(old, guard))
            pool._releaser.revoke(adapter.lease, TimeoutError())  # type: ignore[arg-type]
            assert adapter.guard is None
            stack.enter_context(guarded(old, guard))
            assert adapter.guard is None
            async with pool.connection() as new:
                with guarded(new, guard):
                    stack.close()
                    assert adapter.guard is guard
