"""The pragmas of writer and reader connections: their values, their order, and to whom they belong.

SQLite ignores unknown pragmas and unknown values silently. This module rejects them.
"""

from __future__ import annotations

import difflib
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, Literal

__all__ = ["IN_FILE", "PragmaValue", "Role", "checked_pragmas", "pragmas_for", "row_of", "set_pragmas"]

Role = Literal["read", "write"]
PragmaValue = str | int | float | bool

# Pragmas are set in the order in which they stand here.
_COMMON: dict[str, PragmaValue] = {
    # In WAL mode, a power failure can lose the last commits but cannot corrupt the database. Readers run checkpoints.
    "synchronous": "NORMAL",
    "foreign_keys": True,  # SQLite keeps it off for compatibility with programs older than 2009
    "temp_store": "MEMORY",  # sorts and temporary tables create no file
    "cache_size": -16_000,  # in KiB: 16 MB instead of 2
}
_BY_ROLE: dict[Role, dict[str, PragmaValue]] = {
    "write": {
        # Readers and the writer do not wait for each other. Stored in the file: only the writer sets it.
        "journal_mode": "WAL",
        **_COMMON,
        # Pages in the WAL above which each commit runs a checkpoint itself: more than `truncation.py` leaves there.
        # For programs that keep the connection of the writer, whose commits that module does not see.
        "wal_autocheckpoint": 5_000,
        # Milliseconds. Blocks the worker thread and cannot be cancelled: longer waits are in the event loop. Set last:
        # until then the connection waits for nothing.
        "busy_timeout": 20,
    },
    # Milliseconds. A reader waits only without WAL (in memory, for example), or while another process recovers a WAL.
    "read": {**_COMMON, "query_only": True, "busy_timeout": 30_000},
}
# Pragmas that must be set before the others, because the first write to a new file fixes them.
_FIRST = ("page_size", "auto_vacuum", "encoding", "journal_mode")
# Pragmas that are stored in the file: the fields of its header, which has had the same ones since 2010. Source:
# sqlite.org/fileformat.html.
IN_FILE = frozenset({*_FIRST, "application_id", "default_cache_size", "schema_version", "user_version"})
# Pragmas whose value only the connection that writes uses.
_WRITER_ONLY = frozenset({"journal_size_limit", "wal_autocheckpoint"})
# Pragmas that the user cannot set, and why.
_RESERVED = {"query_only": "it is on for readers and off for the writer"}

_VALUE = re.compile(r"[-+.\w]+")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|0x[0-9a-fA-F]+)")
# Every word that is a value of some pragma. SQLite silently takes any other word for "off" or for the default.
_WORDS = (
    *("on", "off", "yes", "no", "true", "false", "default", "none", "full", "normal", "extra", "fast"),
    *("memory", "file", "delete", "truncate", "persist", "wal", "exclusive", "incremental"),
    *("passive", "restart", "noop", "reset", "utf-8", "utf-16", "utf-16le", "utf-16be"),
)


def checked_pragmas(pragmas: Mapping[str, PragmaValue] | None) -> dict[str, PragmaValue]:
    """Return the user's pragmas by lower-case name. Raises `TypeError` or `ValueError` that names an invalid pragma."""
    if pragmas is not None and not isinstance(pragmas, Mapping):
        raise TypeError(f"pragmas must be a mapping of names to values, not {pragmas!r} ({type(pragmas).__name__})")
    checked: dict[str, PragmaValue] = {}
    for name, value in (pragmas or {}).items():
        if not isinstance(name, str):
            raise TypeError(f"pragmas must have strings as names, not {name!r} ({type(name).__name__})")
        _check_name(name.lower())
        _check_value(name, value)
        checked[name.lower()] = value
    return checked


def _check_name(name: str) -> None:
    if name in _RESERVED:
        raise ValueError(f"pragmas: {name!r} cannot be set: {_RESERVED[name]}")
    known = _known_pragmas()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"pragmas: SQLite {sqlite3.sqlite_version} knows no pragma {name!r}{hint}")


def _known_pragmas() -> list[str]:
    with closing(sqlite3.connect(":memory:")) as connection:
        return [name for (name,) in connection.execute("PRAGMA pragma_list")]


def _check_value(name: str, value: object) -> None:
    if not isinstance(value, str | int | float):
        raise TypeError(f"pragmas: {name} must be a str, a number or a bool, not {value!r} ({type(value).__name__})")
    if not _VALUE.fullmatch(str(value)):
        raise ValueError(f"pragmas: {name} must be one word or number, not {value!r}")
    if isinstance(value, str) and not _NUMBER.fullmatch(value) and value.lower() not in _WORDS:
        close = difflib.get_close_matches(value.lower(), _WORDS, 1)
        hint = f"; did you mean {close[0].upper()!r}?" if close else ""
        if number := re.match(r"[-+]?\d+", value):
            hint = f": SQLite would read {number[0]} and ignore the rest. Write a plain number"
        raise ValueError(f"pragmas: {name} must be a number or a word that SQLite knows, not {value!r}{hint}")
    if name.lower() == "locking_mode" and str(value).lower() == "exclusive":
        raise ValueError(f"pragmas: {name} cannot be {value}: no second connection can use the database then")
    if name.lower() == "journal_mode" and str(value).lower() != "wal":
        raise ValueError(
            f"pragmas: journal_mode must be WAL, not {value!r}: in any other mode, readers and the writer block each "
            "other. Use a SQLiteConnectionPool for a database in another mode"
        )


def pragmas_for(role: Role, pragmas: Mapping[str, PragmaValue]) -> Iterator[tuple[str, str]]:
    """Yield the name and value of each pragma of this role, in the order in which to set them."""
    given = {
        name: value
        for name, value in pragmas.items()
        if role == "write" or not (name in _WRITER_ONLY or name in IN_FILE)
    }
    wanted = {**_BY_ROLE[role], **given}
    for name in (*(name for name in _FIRST if name in wanted), *(name for name in wanted if name not in _FIRST)):
        yield name, _text(wanted[name])


def _text(value: PragmaValue) -> str:
    return str(int(value) if isinstance(value, bool) else value)


# -- on a connection


def set_pragmas(native: sqlite3.Connection, pragmas: Iterable[tuple[str, str]]) -> None:
    """Set pragmas. What is in the file already is not set again: that would need a lock which another may hold."""
    for name, value in pragmas:
        if name in IN_FILE and _is_set(native, name, value):
            continue
        row_of(native, f"PRAGMA {name} = '{value}'")
        if name == "journal_mode" and not _is_set(native, name, value):
            mode = row_of(native, "PRAGMA journal_mode")[0]
            hint = ". Use SQLiteDatabase(':memory:') for a database in memory" if mode == "memory" else ""
            message = f"PRAGMA {name} = '{value}': the database stayed in journal mode {mode!r}{hint}"
            raise sqlite3.OperationalError(message)


def _is_set(native: sqlite3.Connection, name: str, value: str) -> bool:
    row = row_of(native, f"PRAGMA {name}")
    return row is not None and str(row[0]).lower() == value.lower()


def row_of(native: sqlite3.Connection, statement: str) -> Any:
    """Run a statement and return its first row, whatever factories the program has set on the connection."""
    cursor, text_factory = native.cursor(), native.text_factory
    cursor.row_factory, native.text_factory = None, str
    try:
        with closing(cursor):
            return cursor.execute(statement).fetchone()
    finally:
        native.text_factory = text_factory
