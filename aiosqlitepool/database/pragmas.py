"""How a connection is set up for its role: which pragmas, in which order, and why.

Knows SQLite, nothing of pools. A pragma that SQLite does not know is ignored by it without a word; here it is an error.
"""

from __future__ import annotations

import difflib
import re
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Literal

__all__ = ["PragmaValue", "Role", "checked_pragmas", "settings"]

Role = Literal["read", "write"]
PragmaValue = str | int | float | bool

# In the order in which they are set.
_COMMON: dict[str, PragmaValue] = {
    "foreign_keys": True,  # off by default, for the sake of programs older than 2009
    "temp_store": "MEMORY",  # sorting and temporary tables need no file
    "cache_size": -16_000,  # 16 MB instead of 2
}
_BY_ROLE: dict[Role, dict[str, PragmaValue]] = {
    "write": {
        # Milliseconds in the worker thread, where nothing can be cancelled; the rest is waited for in the event loop.
        "busy_timeout": 20,
        # Readers and the writer do not wait for each other. It stays in the file, and is set by the writer alone.
        "journal_mode": "WAL",
        # Safe in WAL mode: a power cut can lose the last commits, and never the database.
        "synchronous": "NORMAL",
        **_COMMON,
    },
    # A reader waits only for a database without WAL, as one in memory is, or for another process that recovers one.
    "read": {"busy_timeout": 30_000, **_COMMON, "query_only": True},
}
# Set first, because they must be when the others are; and what a reader is not asked to do.
_FIRST = ("busy_timeout", "page_size", "auto_vacuum", "encoding", "journal_mode")
_WRITER_ONLY = frozenset({"page_size", "auto_vacuum", "encoding", "journal_mode", "journal_size_limit"})
# What the roles are made of.
_NOT_YOURS = {"query_only": "readers are what cannot write"}

_VALUE = re.compile(r"[-+.\w]+")
# Every word that is a value of some pragma. SQLite takes any other one for "off", or for the default, without a word.
_WORDS = (
    *("on", "off", "yes", "no", "true", "false", "default", "none", "full", "normal", "extra", "fast"),
    *("memory", "file", "delete", "truncate", "persist", "wal", "exclusive", "incremental"),
    *("passive", "restart", "noop", "reset", "utf-8", "utf-16", "utf-16le", "utf-16be"),
)


def checked_pragmas(pragmas: Mapping[str, PragmaValue] | None) -> dict[str, PragmaValue]:
    """The user's pragmas by lower-case name; raises `TypeError` or `ValueError` naming the one that makes no sense."""
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
    if name in _NOT_YOURS:
        raise ValueError(f"pragmas: {name!r} cannot be set: {_NOT_YOURS[name]}")
    known = _known_pragmas()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"pragmas: SQLite {sqlite3.sqlite_version} knows no pragma {name!r}{hint}")


def _known_pragmas() -> list[str]:
    connection = sqlite3.connect(":memory:")
    try:
        return [name for (name,) in connection.execute("PRAGMA pragma_list")]
    finally:
        connection.close()


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
    """Name and value of each pragma for a connection of this role, in the order in which to set them."""
    mine = {name: value for name, value in pragmas.items() if role == "write" or name not in _WRITER_ONLY}
    wanted = {**_BY_ROLE[role], **mine}
    for name in (*(name for name in _FIRST if name in wanted), *(name for name in wanted if name not in _FIRST)):
        value = wanted[name]
        yield name, str(int(value) if isinstance(value, bool) else value)
