"""Refuse COMMIT, ROLLBACK, BEGIN and the like where the database itself begins and ends the transaction.

It is `PRAGMA query_only`, and not this, that keeps readers from writing.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping
from functools import cache, partial, wraps
from typing import Any, Final

from ..driver import RUN_SQL
from ..errors import PoolUsageError
from ..sql import GAP

__all__ = ["ReaderConnection", "check_read", "check_statement", "check_write", "control_word", "guarded_class"]

_CONTROL: Final = re.compile(
    rf"{GAP}(?:(BEGIN|COMMIT|END|VACUUM|ROLLBACK(?!{GAP}(?:TRANSACTION{GAP})?\bTO\b))\b"
    rf"|PRAGMA\b{GAP}(?:\w+{GAP}\.{GAP})?[\"'`\[]?(foreign_keys)\b[\"'`\]]?{GAP}[=(])",
    re.IGNORECASE | re.DOTALL,
)

_COMMITS: Final = "it is committed at the end of its block or function. Remove this call"
_ROLLS_BACK: Final = "to roll it back, raise an exception out of its block or function"
_IN_READ: Final[dict[str | None, str]] = {
    "commit()": _COMMITS,
    "COMMIT": _COMMITS,
    "END": _COMMITS,
    "rollback()": _ROLLS_BACK,
    "ROLLBACK": _ROLLS_BACK,
    "executescript()": "a script commits before it runs. Run its statements one by one, or use db.migrate([script])",
    "`with connection:`": "it would end here. Leave the `with` out",
    "isolation_level = None": "sqlite3 would commit it. Set the isolation level in on_connect",
    "BEGIN": "it has begun already. Remove this statement; a write() block inside a write() block is a savepoint",
    "VACUUM": "SQLite cannot run it there. Use db.maintenance()",
    "PRAGMA foreign_keys": "SQLite ignores that setting inside a transaction. Change it in db.maintenance(); "
    "db.migrate() switches foreign keys off for its steps",
}
_isolation_level: Final[Any] = sqlite3.Connection.isolation_level
# Where SQLite's backup would wait for the end of the transaction, which waits for the backup.
_IN_WRITE: Final = {**_IN_READ, "backup()": "it reads only what is committed. Use db.backup(), or a read() block"}


def control_word(sql: str) -> str | None:
    """Return the first word of a statement that controls transactions, or "PRAGMA foreign_keys" if it sets that."""
    found = _CONTROL.match(sql)
    return found and (str(found[1]).upper() if found[1] else "PRAGMA foreign_keys")


def _check(instead: Mapping[str | None, str], fn: Callable[..., Any], args: tuple[Any, ...], has_ended: bool) -> None:
    """Raise `PoolUsageError` if an operation of a handle would end the transaction, or come after its end."""
    name = getattr(fn, "__name__", "")
    what: str | None = f"{name}()"
    if what not in instead and name in RUN_SQL and args and isinstance(args[0], str):
        if has_ended:
            raise PoolUsageError(
                "SQLite itself rolled this transaction back, as it does on some errors: what follows would be "
                "committed statement by statement. Let that error end the block"
            )
        what = control_word(args[0])
    if what in instead:
        raise _refusal(what)


# The guards of the blocks that are one transaction.
check_read: Final = partial(_check, _IN_READ)
check_write: Final = partial(_check, _IN_WRITE)


def check_statement(sql: str) -> None:
    """Raise `PoolUsageError` if a statement cannot be the only one of a transaction."""
    if (what := control_word(sql)) in _IN_WRITE:
        raise _refusal(what)


def _refusal(what: str | None) -> PoolUsageError:
    return PoolUsageError(f"{what} inside a transaction of the database: {_IN_WRITE[what]}")


def _refusing(name: str, what: str) -> Any:
    @wraps(getattr(sqlite3.Connection, name))
    def checked(native: ReaderConnection, *args: Any, **kwargs: Any) -> Any:
        if native.runs_function:
            raise _refusal(what)
        return getattr(super(ReaderConnection, native), name)(*args, **kwargs)

    return checked


class ReaderConnection(sqlite3.Connection):
    """Refuses to end the transaction of a function while the function runs.

    Does not look at the text of statements: that would take half as long as a short statement itself.
    """

    runs_function: bool = False
    # A handler of the program's own, which reads in the loop's thread would replace.
    has_progress_handler: bool = False
    commit: Any = _refusing("commit", "commit()")
    rollback: Any = _refusing("rollback", "rollback()")
    executescript: Any = _refusing("executescript", "executescript()")
    __exit__: Any = _refusing("__exit__", "`with connection:`")

    @property
    def isolation_level(self) -> Any:
        """`None`, unless the program has set another one."""
        return _isolation_level.__get__(self)

    @isolation_level.setter
    def isolation_level(self, level: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        # sqlite3 commits when it is set to `None`, also if it is `None` already.
        if level is not None or not self.in_transaction:
            _isolation_level.__set__(self, level)
        elif self.isolation_level is not None:
            raise _refusal("isolation_level = None")

    def set_progress_handler(self, *args: Any, **kwargs: Any) -> None:
        """Set a handler of the program's own."""
        self.has_progress_handler = True
        super().set_progress_handler(*args, **kwargs)


class WriterConnection(ReaderConnection):
    """The same, for a transaction that writes."""

    backup: Any = _refusing("backup", "backup()")


@cache
def guarded_class(role: str, kind: Any) -> Any:
    """Return a class of guarded connections of this role, derived from the user's own class `kind`."""
    guard = WriterConnection if role == "write" else ReaderConnection
    if kind is sqlite3.Connection or not isinstance(kind, type):
        return guard if kind is sqlite3.Connection else kind
    return type(f"{kind.__name__}{guard.__name__}", (guard, kind), {})
