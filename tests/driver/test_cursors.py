from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from aiosqlitepool.driver.cursors import LeaseCursors


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    yield connection
    connection.close()


def half_read(connection: sqlite3.Connection) -> sqlite3.Cursor:
    cursor = connection.execute("SELECT 1 UNION ALL SELECT 2")
    cursor.fetchone()
    return cursor


def test_a_cursor_read_to_its_end_is_at_rest(connection: sqlite3.Connection) -> None:
    cursors, cursor = LeaseCursors(), half_read(connection)
    assert cursors.note(cursor)
    assert not cursors.forget_if_at_rest()
    assert cursors.half_read() == [cursor]
    cursor.fetchall()
    assert cursors.forget_if_at_rest()
    assert cursors.newest is None


def test_an_older_cursor_is_known_and_found(connection: sqlite3.Connection) -> None:
    cursors, first, second = LeaseCursors(), half_read(connection), half_read(connection)
    assert [cursors.note(cursor) for cursor in (first, second, first, second)] == [True, True, False, False]
    second.fetchall()
    assert not cursors.forget_if_at_rest()
    assert cursors.close()
    with pytest.raises(sqlite3.ProgrammingError):
        first.fetchone()


def test_cursors_in_the_frames_of_an_error_are_found(connection: sqlite3.Connection) -> None:
    cursors = LeaseCursors()

    def fail() -> None:
        kept = half_read(connection)
        raise ValueError(f"while {kept} is half-read")

    with pytest.raises(ValueError, match="half-read") as caught:
        fail()
    cursors.note_frames(caught.value)
    assert len(cursors.half_read()) == 1


def test_what_is_no_cursor_is_ignored() -> None:
    cursors = LeaseCursors()
    assert not any(cursors.note(each) for each in (None, 1, [], object()))
    assert cursors.forget_if_at_rest()


def test_thousands_of_cursors_that_live_are_not_looked_at_with_each_new_one(connection: sqlite3.Connection) -> None:
    class Counted(set[Any]):
        looks = 0

        def __iter__(self) -> Iterator[Any]:
            Counted.looks += 1
            return super().__iter__()

    cursors, alive = LeaseCursors(), [connection.cursor() for _ in range(4000)]
    for cursor in alive:
        cursors.older = Counted(cursors.older) if type(cursors.older) is set else cursors.older
        cursors.note(cursor)
    assert len(cursors.older) == len(alive) - 1
    assert Counted.looks < 10
