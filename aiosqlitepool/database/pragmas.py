"""The pragmas of writer and reader connections: their values and their order.

SQLite ignores unknown pragmas and unknown values silently. This module rejects them.
"""

from __future__ import annotations

import difflib
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Literal

__all__ = ["FILE_PRAGMAS", "PragmaValue", "Role", "checked_pragmas", "settings"]

Role = Literal["read", "write"]
PragmaValue = str | int | float | bool

# Pragmas are set in the order in which they stand here.
_COMMON: dict[str, PragmaValue] = {
    "foreign_keys": True,  # SQLite keeps it off for compatibility with programs older than 2009
    "temp_store": "MEMORY",  # sorts and temporary tables create no file
    "cache_size": -16_000,  # in KiB: 16 MB instead of 2
}
_BY_ROLE: dict[Role, dict[str, PragmaValue]] = {
    "write": {
        # Milliseconds. Blocks the worker thread and cannot be cancelled: longer waits are in the event loop.
        "busy_timeout": 20,
        # Readers and the writer do not wait for each other. Stored in the file: only the writer sets it.
        "journal_mode": "WAL",
        # In WAL mode, a power failure can lose the last commits but cannot corrupt the database.
        "synchronous": "NORMAL",
        **_COMMON,
    },
    # Milliseconds. A reader waits only without WAL (in memory, for example), or while another process recovers a WAL.
    "read": {"busy_timeout": 30_000, **_COMMON, "query_only": True},
}
# Pragmas that must be set before the others.
_FIRST = ("busy_timeout", "page_size", "auto_vacuum", "encoding", "journal_mode")
# Pragmas whose value is stored in the file.
FILE_PRAGMAS = frozenset({"page_size", "auto_vacuum", "encoding", "journal_mode"})
_WRITER_ONLY = FILE_PRAGMAS | {"journal_size_limit"}
# Pragmas that the user cannot set, and why.
_RESERVED = {"query_only": "it is on for readers and off for the writer"}

_VALUE = re.compile(r"[-+.\w]+")
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
    if isinstance(value, str) and value[0].isalpha() and value.lower() not in _WORDS:
        close = difflib.get_close_matches(value.lower(), _WORDS, 1)
        hint = f"; did you mean {close[0].upper()!r}?" if close else ""
        raise ValueError(f"pragmas: {name} must be a number or a word that SQLite knows, not {value!r}{hint}")


def settings(role: Role, pragmas: Mapping[str, PragmaValue]) -> Iterator[tuple[str, str]]:
    """Yield the name and value of each pragma of this role, in the order in which to set them."""
    given = {name: value for name, value in pragmas.items() if role == "write" or name not in _WRITER_ONLY}
    wanted = {**_BY_ROLE[role], **given}
    for name in (*(name for name in _FIRST if name in wanted), *(name for name in wanted if name not in _FIRST)):
        value = wanted[name]
        yield name, str(int(value) if isinstance(value, bool) else value)
