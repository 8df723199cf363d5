"""One statement alone, with a driver of which only the methods of its connections and cursors are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from aiosqlitepool import Executed
from aiosqlitepool.driver import Change, Fetch, run_alone


class Cursor:
    """Has two rows, and notes what is asked of it."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls
        self.left: list[Any] = [(1,), (2,)]

    async def fetchone(self) -> Any:
        self.calls.append("fetchone")
        return self.left.pop(0) if self.left else None

    async def fetchall(self) -> Sequence[Any]:
        self.calls.append("fetchall")
        return tuple(self.left)


class Connection:
    """Has what a connection of a pool must have, and no `commit()`."""

    def __init__(self, cursor: type[Cursor] = Cursor) -> None:
        self.calls: list[Any] = []
        self.cursor = cursor

    async def execute(self, *args: Any) -> Cursor:
        self.calls.append(args)
        return self.cursor(self.calls)


class Committing(Connection):
    async def commit(self) -> None:
        self.calls.append("commit")


async def test_all_rows_are_fetched_as_a_list() -> None:
    connection = Connection()
    assert await run_alone(connection, Fetch("SELECT 1", ())) == [(1,), (2,)]
    assert connection.calls == [("SELECT 1",), "fetchall"]


async def test_parameters_are_passed_on_if_there_are_any() -> None:
    connection = Connection()
    await run_alone(connection, Fetch("SELECT ?", (7,)))
    await run_alone(connection, Change("SELECT :a", {"a": 7}))
    assert connection.calls == [("SELECT ?", (7,)), "fetchall", ("SELECT :a", {"a": 7}), "fetchall"]


@pytest.mark.parametrize("most", [1, 3])
async def test_no_more_rows_are_fetched_than_are_wanted(most: int) -> None:
    connection = Connection()
    assert await run_alone(connection, Fetch("SELECT 1", (), most=most)) == [(1,), (2,)][:most]
    assert connection.calls == [("SELECT 1",), *["fetchone"] * most]


async def test_a_cursor_that_may_be_half_read_is_closed_before_the_commit() -> None:
    class ClosedByAwaiting(Cursor):
        async def close(self) -> None:
            self.calls.append("close")

    class ClosedByCalling(Cursor):
        def close(self) -> None:
            self.calls.append("close")

    for kind in (ClosedByAwaiting, ClosedByCalling):
        connection = Committing(kind)
        await run_alone(connection, Fetch("INSERT", (), most=1))
        assert connection.calls == [("INSERT",), "fetchone", "close", "commit"]


async def test_a_row_factory_is_set_where_cursors_have_one() -> None:
    class Making(Cursor):
        row_factory: Any = None

        async def fetchall(self) -> Sequence[Any]:
            return [self.row_factory(self, row) for row in self.left]

    fetch = Fetch("SELECT 1", (), lambda _, row: [*row, "made"])
    assert await run_alone(Connection(Making), fetch) == [[1, "made"], [2, "made"]]


async def test_a_row_factory_is_called_where_cursors_have_none() -> None:
    fetch = Fetch("SELECT 1", (), lambda cursor, row: (type(cursor), *row))
    assert await run_alone(Connection(), fetch) == [(Cursor, 1), (Cursor, 2)]


async def test_what_may_have_changed_something_is_committed() -> None:
    for sql in ("INSERT", "WITH a AS (SELECT 1) DELETE", "/* why */ create table t (id)"):
        connection = Committing()
        await run_alone(connection, Change(sql, ()))
        assert connection.calls == [(sql,), "fetchall", "commit"]


async def test_what_only_reads_makes_no_trip_to_commit() -> None:
    for sql in ("SELECT 1", "-- why\nvalues (1)", "PRAGMA user_version", "EXPLAIN DELETE FROM t"):
        connection = Committing()
        await run_alone(connection, Fetch(sql, ()))
        assert connection.calls == [(sql,), "fetchall"]


async def test_nothing_is_committed_where_no_transaction_is_open() -> None:
    class Autocommitting(Committing):
        in_transaction = False

    connection = Autocommitting()
    await run_alone(connection, Change("INSERT", ()))
    assert connection.calls == [("INSERT",), "fetchall"]


async def test_what_a_cursor_says_of_a_change_is_returned() -> None:
    class Telling(Cursor):
        description, rowcount, lastrowid = None, 3, 9

    connection = Connection(Telling)
    assert await run_alone(connection, Change("INSERT", ())) == Executed(3, 9)
    assert connection.calls == [("INSERT",)]  # without columns, there are no rows to fetch
    assert await run_alone(Connection(), Change("INSERT", ())) == Executed(-1, None)
