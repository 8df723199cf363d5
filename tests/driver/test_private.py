from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from aiosqlitepool.driver import private
from aiosqlitepool.driver.private import is_private


@pytest.mark.parametrize("path", [":memory:", ""], ids=["in memory", "temporary"])
def test_a_database_without_a_name_is_private_to_its_connection(path: str) -> None:
    for _ in range(2):
        with contextlib.closing(sqlite3.connect(path)) as native:
            native.row_factory = lambda cursor, row: None
            assert is_private(native)


def test_a_named_database_is_not_private(tmp_path: Path) -> None:
    for path in (f"file:{tmp_path}/app.db", "file:/shared?vfs=memdb"):
        with contextlib.closing(sqlite3.connect(path, uri=True)) as native:
            assert not is_private(native)


def test_a_shared_cache_is_private_to_its_first_connection_only() -> None:
    uri = "file:shared?mode=memory&cache=shared"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as one:
        assert is_private(one)
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as other:
            assert not is_private(other)


def test_a_shared_cache_whose_schema_changes_just_now_is_not_private() -> None:
    uri = "file:changing?mode=memory&cache=shared"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as one:
        one.execute("BEGIN IMMEDIATE")
        one.execute("CREATE TABLE note (text TEXT)")
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as other:
            assert not is_private(other)


def test_a_limit_of_the_programs_own_is_left_as_it_is() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as native:
        native.execute("PRAGMA max_page_count = 100")
        assert not is_private(native)
        assert native.execute("PRAGMA max_page_count").fetchone() == (100,)


def test_a_database_that_connections_share_by_name_keeps_its_journal_in_memory() -> None:
    with contextlib.closing(sqlite3.connect("file:/journal?vfs=memdb", uri=True)) as native:
        assert not is_private(native)
        assert native.execute("PRAGMA journal_mode").fetchone() == ("memory",)


def test_a_database_that_is_shared_by_name_is_known_also_if_sqlite_does_not_tell_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As from SQLite 3.53."""
    monkeypatch.setattr(private, "name_of", lambda native: b"")
    with contextlib.closing(sqlite3.connect("file:/unnamed?vfs=memdb", uri=True)) as native:
        assert not is_private(native)
        assert native.execute("PRAGMA journal_mode").fetchone() == ("memory",)
    with contextlib.closing(sqlite3.connect(":memory:")) as native:
        assert is_private(native)
