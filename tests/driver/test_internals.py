from __future__ import annotations

import asyncio
import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import SQLiteConnectionPool, driver
from aiosqlitepool.driver import KNOWS_AIOSQLITE, AiosqliteAdapter, GenericAdapter, adapter_for, internals, opening
from aiosqlitepool.driver.internals import STOP, knows_aiosqlite, queue_job, thread_of, warn_of_generic_adapter


def test_the_installed_aiosqlite_has_the_internals_that_are_used() -> None:
    assert knows_aiosqlite()
    assert KNOWS_AIOSQLITE


# -- what an aiosqlite to come may do otherwise


@pytest.mark.parametrize("missing", ["_execute", "_conn", "_execute_insert", "execute_fetchall", "commit"])
def test_an_aiosqlite_without_these_internals_is_noticed(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(aiosqlite.Connection, missing)
    assert not knows_aiosqlite()


def test_an_aiosqlite_without_its_marker_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internals, "STOP", None)
    assert not knows_aiosqlite()


def test_an_aiosqlite_without_its_queue_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = aiosqlite.Connection.__init__

    def without(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        del self._tx

    monkeypatch.setattr(aiosqlite.Connection, "__init__", without)
    assert not knows_aiosqlite()


def test_an_aiosqlite_whose_threads_do_not_end_at_the_marker_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    goes_on = threading.Event()

    class Deaf(threading.Thread):
        def __init__(self) -> None:
            super().__init__(target=goes_on.wait, args=(60,))
            threads.append(self)

    monkeypatch.setattr(internals, "thread_of", lambda connection: Deaf())
    monkeypatch.setattr(internals, "_PATIENCE", 0.0)
    assert not knows_aiosqlite()
    goes_on.set()
    threads[-1].join(60)


def test_an_aiosqlite_whose_methods_go_around_execute_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def commit(self: aiosqlite.Connection) -> None:
        self._conn.commit()

    monkeypatch.setattr(aiosqlite.Connection, "commit", commit)
    assert not knows_aiosqlite()


def test_an_aiosqlite_whose_methods_wait_for_something_else_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def commit(self: aiosqlite.Connection) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(aiosqlite.Connection, "commit", commit)
    assert not knows_aiosqlite()


# -- threads


def test_the_thread_of_a_connection_is_its_own_or_the_connection_itself() -> None:
    class HasThread:
        _thread = threading.Thread()

    class IsThread(threading.Thread):
        """As connections of aiosqlite were before 0.22."""

    assert thread_of(HasThread) is HasThread._thread
    old = IsThread()
    assert thread_of(old) is old


class Items(threading.Thread):
    """A connection as before aiosqlite 0.22, which is a thread, and its queue: keeps what is put."""

    def __init__(self) -> None:
        super().__init__()
        self._tx = self
        self.items: list[Any] = []

    def put_nowait(self, item: Any) -> None:
        self.items.append(item)


def run_as_0_21(connection: Items) -> Iterator[object]:
    """The loop of a thread of aiosqlite 0.21 and before: the marker is an item, and each item has a future."""
    for item in connection.items:  # also what is put meanwhile
        if item is STOP:
            return
        future, job = item
        result = job()
        future.get_loop().call_soon_threadsafe(None, future, result)
        yield result
    raise AssertionError("no marker")


def test_a_thread_that_looks_for_the_marker_in_its_queue_ends_after_the_job_that_returns_it() -> None:
    connection = Items()
    queue_job(connection, lambda: "first")
    queue_job(connection, lambda: STOP)
    assert list(run_as_0_21(connection)) == ["first", STOP]


async def test_a_closed_connection_leaves_nothing_in_the_queue_of_aiosqlite(database: Path) -> None:
    """So that a program which waits until that queue is empty, as aiosqlite's own tests do, ends."""
    connection = aiosqlite.connect(database)
    async with SQLiteConnectionPool(lambda: connection, 1) as pool, pool.connection() as lent:
        await lent.close()
    await asyncio.to_thread(thread_of(connection).join, 60)
    assert connection._tx.empty()


# -- the generic adapter instead


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the installed aiosqlite be one that the package does not know."""
    for module in (driver, opening):
        monkeypatch.setattr(module, "KNOWS_AIOSQLITE", False)
    warn_of_generic_adapter.cache_clear()
    yield
    warn_of_generic_adapter.cache_clear()


def connect(database: Path) -> Callable[[], aiosqlite.Connection]:
    return lambda: aiosqlite.connect(database)


@pytest.mark.usefixtures("unknown")
async def test_connections_of_an_unknown_aiosqlite_get_the_generic_adapter_and_one_warning(database: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with SQLiteConnectionPool(connect(database), 2) as pool:
            async with pool.connection() as first, pool.connection() as second:
                assert type(first) is type(second) is aiosqlite.Connection
    (warning,) = caught
    assert warning.category is RuntimeWarning
    assert f"aiosqlite {aiosqlite.__version__}" in str(warning.message)
    assert "statements are not measured" in str(warning.message)


@pytest.mark.usefixtures("unknown")
async def test_a_pool_on_an_unknown_aiosqlite_rolls_back_what_a_holder_leaves_open(database: Path) -> None:
    with pytest.warns(RuntimeWarning, match="does not know the internals"):
        async with SQLiteConnectionPool(connect(database), 1) as pool:
            async with pool.connection() as connection:
                await connection.execute("INSERT INTO note (text) VALUES ('never committed')")
            async with pool.connection() as connection:
                assert list(await connection.execute_fetchall("SELECT text FROM note")) == []


@pytest.mark.usefixtures("unknown")
async def test_a_driver_other_than_aiosqlite_gets_no_warning() -> None:
    class Other:
        """Any driver."""

    assert type(adapter_for(Other())) is GenericAdapter  # type: ignore[arg-type]


async def test_a_known_aiosqlite_gets_no_warning(database: Path) -> None:
    async with aiosqlite.connect(database) as connection:
        assert type(adapter_for(connection)) is AiosqliteAdapter


async def test_a_handle_can_be_shown(database: Path) -> None:
    """Up to aiosqlite 0.21 a connection is a thread, whose text needs a thread that was set up."""
    async with SQLiteConnectionPool(connect(database)) as pool, pool.connection() as connection:
        assert "ConnectionHandle object at" in repr(connection)


def test_a_handle_of_a_class_with_a_text_of_its_own_shows_that(database: Path) -> None:
    class Named(aiosqlite.Connection):
        def __repr__(self) -> str:
            return "named"

    async def shown() -> str:
        async with SQLiteConnectionPool(lambda: Named(lambda: sqlite3.connect(database), 64)) as pool:
            async with pool.connection() as connection:
                return repr(connection)

    assert asyncio.run(shown()) == "named"


async def test_a_program_can_ask_whether_the_thread_of_a_handle_runs(database: Path) -> None:
    """As the saver of LangGraph does, in the way of each series of aiosqlite."""
    async with SQLiteConnectionPool(connect(database)) as pool:
        async with pool.connection() as connection:
            lent: Any = connection
            is_alive = lent.is_alive if hasattr(aiosqlite.Connection, "is_alive") else lent._thread.is_alive
            assert is_alive()
