from __future__ import annotations

import asyncio
import sqlite3
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolUsageError, SQLiteConnectionPool
from aiosqlitepool.driver import AiosqliteAdapter, adapter_for
from aiosqlitepool.driver.generic_adapter import GenericAdapter
from aiosqlitepool.driver.internals import thread_of
from aiosqlitepool.driver.opening import connect, discard, discard_locals, opened
from aiosqlitepool.testing import Recorder

from ..support.children import run_program
from ..support.worker import HASH, IS_THREAD, until_workers_are, workers

BAD = "PRAGMA no_such_pragma = ,"

Factory = Callable[[], Awaitable[aiosqlite.Connection]]


async def fails_to_open(factory: Factory, **settings: Any) -> BaseException:
    """What an acquire raises, while it is kept: an error that is forgotten would free its frames by itself."""
    async with SQLiteConnectionPool(factory, 1, **settings) as pool:
        with pytest.raises((sqlite3.Error, RuntimeError, TimeoutError)) as raised:
            await pool.acquire()
        return raised.value


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    """End the threads that a factory leaves behind, up to aiosqlite 0.21: they would keep this program alive."""
    yield
    for thread in threading.enumerate():
        if isinstance(thread, aiosqlite.Connection):
            discard(thread)
            thread.join(60)


async def usable(connection: aiosqlite.Connection) -> bool:
    return list(await connection.execute_fetchall("SELECT 1")) == [(1,)]


# -- opening


async def test_an_awaited_factory_gives_what_it_made() -> None:
    class Driver:
        """Of which nothing is known."""

    async def made() -> Driver:
        return Driver()

    assert isinstance(await opened(made()), Driver)


async def test_a_factory_that_makes_no_connection_is_a_type_error() -> None:
    async def nothing() -> None:
        return None

    async def native() -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:")
        connection.close()
        return connection

    for factory, message in [
        (lambda: 1, "must return an awaitable, not 1"),
        (nothing, "has no execute and no rollback and no close.*return an open connection"),
        (native, "cannot be awaited; use aiosqlite.connect"),
    ]:
        with pytest.raises(TypeError, match=message):
            await connect(factory)  # type: ignore[arg-type]


async def test_an_aiosqlite_connection_is_opened_in_a_thread_that_keeps_no_program_alive(database: Path) -> None:
    connection = await opened(aiosqlite.connect(database))
    assert thread_of(connection).daemon
    assert await usable(connection)
    await connection.close()


async def test_a_file_that_cannot_be_opened_raises_the_drivers_error_and_leaves_no_thread(tmp_path: Path) -> None:
    before = workers()
    with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
        await opened(aiosqlite.connect(tmp_path / "missing" / "app.db"))
    await until_workers_are(before)


async def test_a_connection_given_up_while_it_is_opened_is_closed_when_it_is_open(database: Path) -> None:
    before, go_on, native = workers(), threading.Event(), list[sqlite3.Connection]()

    def connector() -> sqlite3.Connection:
        assert go_on.wait(60)
        native.append(sqlite3.connect(database, check_same_thread=False))
        return native[0]

    opening = asyncio.ensure_future(opened(aiosqlite.Connection(connector, 64)))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    go_on.set()
    await until_workers_are(before)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        native[0].execute("SELECT 1")


async def test_a_class_that_connects_in_its_own_way_is_awaited(database: Path) -> None:
    class Own(aiosqlite.Connection):
        async def _connect(self) -> aiosqlite.Connection:
            connection = await super()._connect()
            await connection.execute("PRAGMA foreign_keys = ON")
            return connection

    async with SQLiteConnectionPool(lambda: Own(lambda: sqlite3.connect(database), 64)) as pool:
        async with pool.connection() as connection:
            assert list(await connection.execute_fetchall("PRAGMA foreign_keys")) == [(1,)]


# -- what a factory that fails leaves open


async def test_a_factory_that_fails_after_connecting_leaves_no_worker_thread(database: Path) -> None:
    async def connect() -> aiosqlite.Connection:
        connection = await aiosqlite.connect(database)
        cursor = await connection.execute("PRAGMA foreign_keys = ON")
        await cursor.execute(BAD)
        return connection

    before = workers()
    error = await fails_to_open(connect)
    await until_workers_are(before + IS_THREAD)
    assert isinstance(error, sqlite3.OperationalError)


async def test_a_connection_opened_in_a_helper_whose_error_was_replaced_is_stopped_as_well(database: Path) -> None:
    async def helper() -> aiosqlite.Connection:
        connection = await aiosqlite.connect(database)
        await connection.execute(BAD)
        return connection

    async def connect() -> aiosqlite.Connection:
        try:
            return await helper()
        except sqlite3.Error as error:
            raise RuntimeError("no connection") from error

    before = workers()
    error = await fails_to_open(connect)
    await until_workers_are(before + IS_THREAD)
    assert str(error) == "no connection"


async def test_a_factory_that_is_given_up_after_connecting_leaves_no_worker_thread(database: Path) -> None:
    async def connect() -> aiosqlite.Connection:
        connection = await aiosqlite.connect(database)
        await asyncio.Event().wait()
        return connection

    before = workers()
    await fails_to_open(connect, acquisition_timeout=0.1, operation_timeout=0.1)
    await until_workers_are(before + IS_THREAD)


async def test_a_connection_that_was_open_before_the_factory_ran_stays_open(database: Path) -> None:
    async with aiosqlite.connect(database) as shared:

        async def connect() -> aiosqlite.Connection:
            connection = shared
            await connection.execute(BAD)
            return connection

        await fails_to_open(connect)
        assert await usable(shared)


async def test_a_connection_that_the_factory_keeps_for_later_stays_open(database: Path) -> None:
    kept: aiosqlite.Connection | None = None

    class Factory:
        kept: aiosqlite.Connection | None = None

        async def __call__(self) -> aiosqlite.Connection:
            nonlocal kept
            connection = self.kept = await aiosqlite.connect(database)
            kept = await aiosqlite.connect(database)
            await connection.execute(BAD)
            return connection

    factory = Factory()
    await fails_to_open(factory)
    assert kept is not None
    assert factory.kept is not None
    for connection in (kept, factory.kept):
        assert await usable(connection)
        await connection.close()


async def test_a_connection_in_a_list_of_the_factory_stays_open(database: Path) -> None:
    """Bug: all that a factory had opened was closed when it failed, wherever the program kept it."""
    made: list[aiosqlite.Connection] = []

    async def connect() -> aiosqlite.Connection:
        made.append(await aiosqlite.connect(database))
        await made[-1].execute(BAD)
        return made[-1]

    await fails_to_open(connect)
    (connection,) = made
    assert await usable(connection)
    await connection.close()


async def test_a_connection_that_another_pool_opened_meanwhile_stays_open(database: Path) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database)) as other:

        async def connect() -> aiosqlite.Connection:
            async with other.connection() as connection:
                await connection.execute(BAD)
                return connection

        await fails_to_open(connect)
        async with other.connection() as connection:
            assert await usable(connection)
        assert other.stats().size == 1


async def test_a_connection_of_another_pool_is_refused_and_stays_open(database: Path) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database)) as other, other.connection() as lent:

        async def connect() -> aiosqlite.Connection:
            return lent

        assert isinstance(error := await fails_to_open(connect), PoolUsageError)
        assert "another pool" in str(error)
        assert await usable(lent)


async def test_discarding_the_locals_of_an_error_without_connections_takes_no_time() -> None:
    def fail() -> None:
        kept = [1]
        raise KeyError("k", kept)

    with pytest.raises(KeyError) as raised:
        fail()
    with pytest.raises(StopIteration):
        discard_locals(raised.value).send(None)


async def test_discarding_locals_shows_no_warning_of_aiosqlite(database: Path) -> None:
    async def fail() -> None:
        connection = await aiosqlite.connect(database)
        raise KeyError("k", id(connection))

    before = workers()
    with pytest.raises(KeyError) as raised:
        await fail()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await discard_locals(raised.value)
    await until_workers_are(before + IS_THREAD)


async def test_a_task_that_stored_the_error_and_goes_on_is_not_ended() -> None:
    requests: asyncio.Queue[asyncio.Future[aiosqlite.Connection]] = asyncio.Queue()

    async def fail() -> aiosqlite.Connection:
        raise RuntimeError("no connection")

    async def provide() -> None:
        while True:
            request = await requests.get()
            try:
                request.set_result(await fail())
            except RuntimeError as error:
                request.set_exception(error)

    async def connect() -> aiosqlite.Connection:
        request: asyncio.Future[aiosqlite.Connection] = asyncio.get_running_loop().create_future()
        await requests.put(request)
        return await request

    provider = asyncio.create_task(provide())
    for _ in range(2):
        assert str(await fails_to_open(connect)) == "no connection"
    assert not provider.done()
    provider.cancel()


async def test_an_error_that_is_its_own_cause_is_no_endless_loop() -> None:
    first, second = KeyError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    await discard_locals(first)


def test_a_program_whose_factory_fails_ends(tmp_path: Path) -> None:
    ended = run_program(
        """
        import asyncio, pathlib, threading
        import aiosqlite
        from aiosqlitepool import SQLiteConnectionPool

        pathlib.Path("app.db").write_bytes(b"this is no database" * 100)

        async def connect():
            conn = await aiosqlite.connect("app.db")
            try:
                await conn.execute("PRAGMA synchronous = NORMAL")
            except aiosqlite.DatabaseError:
                if isinstance(conn, threading.Thread):  # up to aiosqlite 0.21 nothing else ends it
                    await conn.close()
                raise
            return conn

        async def main():
            async with SQLiteConnectionPool(connect) as pool, pool.connection():
                pass

        try:
            asyncio.run(main())
        except Exception as error:
            print(error)
        """,
        tmp_path,
    )
    assert (ended.code, ended.out, ended.untidy()) == (0, "file is not a database\n", [])


def test_a_worker_that_opens_its_file_after_its_loop_was_closed_prints_nothing(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: a tenth of a second after the pool gave up on it, the thread ended with a traceback on stderr."""
    complaints, enough, late = list[threading.ExceptHookArgs](), threading.Event(), list[sqlite3.Connection]()
    monkeypatch.setattr(threading, "excepthook", complaints.append)
    connections: list[aiosqlite.Connection] = []

    def open_late() -> sqlite3.Connection:
        enough.wait(60)
        late.append(sqlite3.connect(database, check_same_thread=False))
        return late[0]

    def connect() -> aiosqlite.Connection:
        connections.append(aiosqlite.Connection(open_late, 64))
        return connections[-1]

    async def give_up() -> None:
        async with SQLiteConnectionPool(connect, 1, acquisition_timeout=0.05, operation_timeout=0.05) as pool:
            with pytest.raises(TimeoutError):
                await pool.acquire()

    asyncio.run(give_up())
    assert thread_of(connections[0]).is_alive()
    enough.set()
    thread_of(connections[0]).join(60)
    assert not thread_of(connections[0]).is_alive()
    assert complaints == []
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        late[0].execute("SELECT 1")


# -- classes of the user's own


class Own(aiosqlite.Connection):
    """Overrides what a handle would go around."""

    async def close(self) -> None:
        await super().close()


async def own(database: Path) -> Own:
    connection = Own(lambda: sqlite3.connect(database), 64)
    thread_of(connection).daemon = True
    await connection
    return connection


async def test_a_class_that_only_adds_to_it_gets_the_aiosqlite_adapter(database: Path) -> None:
    class Adds(aiosqlite.Connection):
        async def first(self, sql: str) -> Any:
            return next(iter(await self.execute_fetchall(sql)), None)

    async with Adds(lambda: sqlite3.connect(database), 64) as connection:
        assert isinstance(adapter_for(connection), AiosqliteAdapter)


@pytest.mark.parametrize("name", ["_execute", "_conn", "rollback", "close", "stop", "interrupt"])
async def test_a_class_that_overrides_what_a_handle_would_go_around_is_driven_through_its_own_methods(
    database: Path, name: str
) -> None:
    kind = type("Overrides", (aiosqlite.Connection,), {name: lambda self: None})
    assert type(adapter_for(kind(lambda: sqlite3.connect(database), 64))) is GenericAdapter


async def test_what_a_class_overrides_is_called(database: Path, recorder: Recorder) -> None:
    called: list[str] = []

    class Overrides(aiosqlite.Connection):
        async def rollback(self) -> None:
            called.append("rollback")
            await super().rollback()

        async def close(self) -> None:
            called.append("close")
            await super().close()

    def connect() -> aiosqlite.Connection:
        return Overrides(lambda: sqlite3.connect(database), 64)

    async with SQLiteConnectionPool(connect, 1, subscribers=[recorder]) as pool:
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO note (text) VALUES ('never committed')")
        assert called == ["rollback"]
        async with pool.connection() as again:
            assert again is connection
            assert list(await again.execute_fetchall("SELECT text FROM note")) == []
    assert called == ["rollback", "rollback", "close"]


async def test_connections_of_a_class_with_equality_of_its_own_are_pooled(database: Path) -> None:
    """Bug: they were looked up in a set, so two equal ones were one, and unhashable ones an error."""

    class Equal(aiosqlite.Connection):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        __hash__ = HASH

    async with SQLiteConnectionPool(lambda: Equal(lambda: sqlite3.connect(database), 64), 2) as pool:
        async with pool.connection() as first, pool.connection() as second:
            assert first == second
            await first.execute("INSERT INTO note (text) VALUES ('first')")
            await first.commit()
            assert list(await second.execute_fetchall("SELECT text FROM note")) == [("first",)]


@pytest.mark.parametrize("state", ["idle", "running"])
def test_a_program_that_forgets_a_pool_of_a_class_of_its_own_ends(tmp_path: Path, state: str) -> None:
    ended = run_program(
        f"""
        import asyncio, sqlite3
        import aiosqlite
        from aiosqlitepool import SQLiteConnectionPool

        class Own(aiosqlite.Connection):
            async def close(self):
                await super().close()

        async def connect():
            return await Own(lambda: sqlite3.connect("app.db"), 64)

        pool = SQLiteConnectionPool(connect, name="shop")
        SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

        async def main():
            conn = await pool.acquire()
            if {state == "running"}:
                asyncio.ensure_future(conn.execute(SLOW))
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        asyncio.run(main())
        """,
        tmp_path,
    )
    assert ended.code == 0
    assert "was never closed" in ended.err


async def test_an_overriding_connection_that_is_abandoned_in_its_loop_closes_its_own_way(database: Path) -> None:
    connection = await own(database)
    adapter_for(connection).abandon()
    await until_workers_are(0)
    assert connection._connection is None


def test_an_overriding_connection_can_be_abandoned_without_a_loop(database: Path) -> None:
    connection = asyncio.run(own(database))
    adapter_for(connection).abandon()
    thread_of(connection).join(60)
    assert workers() == 0


def test_an_overriding_connection_that_is_closed_already_can_be_abandoned_without_a_loop(database: Path) -> None:
    async def closed() -> Own:
        connection = await own(database)
        await connection.close()
        await until_workers_are(0)
        return connection

    adapter_for(asyncio.run(closed())).abandon()
    assert workers() == 0
