from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from wrapt import ObjectProxy

from aiosqlitepool.driver import sqlite
from aiosqlitepool.driver.sqlite import File, LeaseCursors, file_of, half_read, roll_back
from aiosqlitepool.errors import ConnectionBrokenError

from ..support.clock import Clock


@pytest.fixture
def file(tmp_path: Path) -> File:
    """A database file that was opened."""
    with contextlib.closing(sqlite3.connect(tmp_path / "app.db")) as native:
        known = file_of(native)
        assert known is not None
        return known


def test_a_file_is_known_by_its_path_and_place_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with contextlib.closing(sqlite3.connect(path)) as native:
        found = path.stat()
        known = file_of(native)
        assert known is not None
        assert (known.path, known.identity) == (str(path), (found.st_dev, found.st_ino))


def test_a_file_whose_name_is_not_utf_8_is_known_too(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.db")
    with contextlib.closing(sqlite3.connect(path)) as native:
        known = file_of(native)
        assert known is not None
        assert os.fsencode(known.path) == path


def test_looking_for_the_file_leaves_the_program_s_own_factories_as_they_are(tmp_path: Path) -> None:
    def shouted(text: bytes) -> str:
        return text.decode().upper()

    with contextlib.closing(sqlite3.connect(tmp_path / "app.db")) as native:
        native.text_factory, native.row_factory = shouted, sqlite3.Row
        known = file_of(native)
        assert known is not None
        assert known.path == str(tmp_path / "app.db")
        assert native.execute("SELECT 'quiet' AS said").fetchone()["said"] == "QUIET"


def test_memory_is_no_file() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as native:
        assert file_of(native) is None


def test_a_file_that_is_still_there_is_well(file: File) -> None:
    file.verify()


def test_a_file_that_is_gone_is_not(file: File) -> None:
    os.remove(file.path)
    with pytest.raises(ConnectionBrokenError, match="the database file is gone"):
        file.verify()


def test_a_file_that_was_replaced_by_another_is_not(file: File, tmp_path: Path) -> None:
    another = tmp_path / "another.db"
    another.touch()  # before the first is gone, whose inode it could get
    another.replace(file.path)
    with pytest.raises(ConnectionBrokenError, match=r"the database file '.*app\.db' was replaced"):
        file.verify()


@dataclass
class Inodes:
    """A file system that reports other inodes than there are."""

    number: int = 1
    # What is added with each look.
    step: int = 0
    times_seen: int = 0

    def stat(self, path: str) -> os.stat_result:
        found = real_stat(path)
        self.number += self.step
        self.times_seen += 1
        return os.stat_result((found.st_mode, self.number, *tuple(found)[2:]))


real_stat = os.stat


@pytest.fixture
def inodes(monkeypatch: pytest.MonkeyPatch) -> Inodes:
    inodes = Inodes()
    monkeypatch.setattr("aiosqlitepool.driver.sqlite.os.stat", inodes.stat)
    monkeypatch.setattr("aiosqlitepool.driver.sqlite._changes", {})
    return inodes


def opened(path: Path) -> File:
    with contextlib.closing(sqlite3.connect(path)) as native:
        found = file_of(native)
        assert found is not None
        return found


def is_replaced(file: File) -> bool:
    try:
        file.verify()
    except ConnectionBrokenError:
        return True
    return False


def test_an_inode_that_changes_by_itself_is_believed_twice_and_warned_of_once(
    tmp_path: Path, inodes: Inodes, caplog: pytest.LogCaptureFixture
) -> None:
    inodes.step = 1
    assert [is_replaced(opened(tmp_path / "app.db")) for _ in range(5)] == [True, True, False, False, False]
    (record,) = caplog.records
    assert "app.db' changes by itself" in record.message
    os.remove(tmp_path / "app.db")
    with pytest.raises(ConnectionBrokenError, match="gone"):
        File(str(tmp_path / "app.db"), None, 0.0).verify()


def test_an_inode_that_alternates_is_noticed_too(tmp_path: Path, inodes: Inodes) -> None:
    replaced = []
    for _ in range(4):
        inodes.number = 1
        file = opened(tmp_path / "app.db")
        inodes.number = 2
        replaced.append(is_replaced(file))
    assert replaced == [True, True, False, False]


def test_a_file_that_is_replaced_under_many_connections_was_replaced_once(tmp_path: Path, inodes: Inodes) -> None:
    for number in range(1, 3):
        inodes.number = number
        files = [opened(tmp_path / "app.db") for _ in range(10)]
        inodes.number = number + 1
        assert all(map(is_replaced, files))


def test_a_file_that_is_replaced_again_and_again_is_noticed_each_time(
    tmp_path: Path, inodes: Inodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    monkeypatch.setattr("aiosqlitepool.driver.sqlite.time.monotonic", clock)
    for number in range(1, 6):
        inodes.number = number
        file = opened(tmp_path / "app.db")
        clock.advance(60)
        inodes.number = number + 1
        assert is_replaced(file)
    assert not caplog.records


@pytest.mark.parametrize("isolation", ["", "IMMEDIATE", None])
def test_an_open_transaction_is_undone(isolation: Any) -> None:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=isolation)) as native:
        native.execute("CREATE TABLE note (text TEXT)")
        native.execute("BEGIN")
        native.execute("INSERT INTO note VALUES ('lost')")
        roll_back(native)
        assert not native.in_transaction
        assert native.execute("SELECT * FROM note").fetchall() == []


# -- cursors


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    yield connection
    connection.close()


def begun(connection: sqlite3.Connection) -> sqlite3.Cursor:
    cursor = connection.execute("SELECT 1 UNION ALL SELECT 2")
    cursor.fetchone()
    return cursor


def test_a_cursor_read_to_its_end_is_idle(connection: sqlite3.Connection) -> None:
    cursors, cursor = LeaseCursors(), begun(connection)
    cursors.note(cursor)
    assert not cursors.forget_if_idle()
    assert cursors.half_read() == [cursor]
    cursor.fetchall()
    assert cursors.forget_if_idle()
    assert cursors.newest is None


def test_an_older_cursor_is_known_and_found(connection: sqlite3.Connection) -> None:
    cursors, first, second = LeaseCursors(), begun(connection), begun(connection)
    for cursor in (first, second, first, second):
        cursors.note(cursor)
    second.fetchall()
    assert not cursors.forget_if_idle()
    assert cursors.close()
    with pytest.raises(sqlite3.ProgrammingError):
        first.fetchone()


def test_cursors_in_the_frames_of_an_error_are_found(connection: sqlite3.Connection) -> None:
    cursors = LeaseCursors()

    def fail() -> None:
        kept = begun(connection)
        raise ValueError(f"while {kept} is half-read")

    with pytest.raises(ValueError, match="half-read") as caught:
        fail()
    cursors.note_frames(caught.value)
    assert len(cursors.half_read()) == 1


class Proxy:
    """What a tracer wraps around connections and cursors."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped


class Slotted:
    __slots__ = ("__weakref__", "wrapped")

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped


@pytest.mark.parametrize(
    "wrap",
    [Proxy, Slotted, ObjectProxy, lambda wrapped: Proxy(ObjectProxy(wrapped))],
    ids=["an attribute", "a slot", "wrapt", "two tracers"],
)
def test_a_cursor_behind_a_proxy_is_found_and_closed(connection: sqlite3.Connection, wrap: Any) -> None:
    cursors, cursor = LeaseCursors(wrap(connection)), begun(connection)
    proxy = wrap(cursor)
    cursors.note(proxy)
    assert cursors.newest is cursors.cursor_of(proxy) is cursor
    assert not cursors.forget_if_idle()
    assert cursors.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
        cursor.fetchone()


def test_behind_a_proxy_a_cursor_of_another_connection_is_left_alone(connection: sqlite3.Connection) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as other:
        cursors = LeaseCursors(Proxy(connection))  # type: ignore[arg-type]
        cursors.note(Proxy(begun(other)))
        cursors.note([Proxy(begun(connection))])
        assert cursors.newest is None


def test_a_plain_connection_has_no_proxies(connection: sqlite3.Connection) -> None:
    cursors = LeaseCursors(connection)
    cursors.note(Proxy(begun(connection)))
    assert cursors.newest is None


def test_what_is_no_cursor_is_ignored() -> None:
    cursors = LeaseCursors()
    for each in (None, 1, [], object()):
        cursors.note(each)
    assert cursors.forget_if_idle()


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


def test_a_connection_knows_what_holds_a_statement_of_it_wherever_that_is_kept(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE note (content BLOB)")
    connection.execute("INSERT INTO note VALUES (zeroblob(9))").close()
    connection.execute("SELECT 1").fetchall()
    first, done, lost, second = (begun(connection) for _ in range(4))
    done.fetchall()
    del lost
    with connection.blobopen("note", "content", 1) as blob:
        assert half_read(connection) == [first, second, blob]
    second.close()
    assert half_read(ObjectProxy(connection)) == [first, blob]  # that a blob is closed cannot be seen


def test_where_a_connection_does_not_refer_to_its_cursors_they_are_found_all_the_same(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from Python 3.15: no order is promised then."""
    monkeypatch.setattr(sqlite, "_LISTS_CURSORS", False)
    monkeypatch.setattr(sqlite, "_listed", lambda native: [])
    first, done, second = (begun(connection) for _ in range(3))
    done.fetchall()
    with contextlib.closing(sqlite3.connect(":memory:")) as other:
        kept = begun(other)
        assert {*map(id, half_read(connection))} == {id(first), id(second)}
        assert half_read(other) == [kept]
