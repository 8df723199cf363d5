"""What a connection with autocommit=False (Python 3.12) has not committed. For the thread that may use it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from typing import Any, Final, TypeVar

__all__ = ["Unsaved"]

T = TypeVar("T")


class Unsaved:
    """What a connection with autocommit=False (Python 3.12) has written since it committed.

    A transaction is always open there, so that `in_transaction` says nothing.
    """

    __slots__ = ("_changes", "_native", "_schema")

    def __init__(self, native: sqlite3.Connection) -> None:
        self._native = native
        self.forget()

    def forget(self) -> None:
        """Note that nothing is left: it was committed or rolled back."""
        # SQLite counts changed rows; a change of the schema shows in its statement.
        self._changes = self._native.total_changes
        self._schema = False

    def __bool__(self) -> bool:
        return self._schema or self._native.total_changes != self._changes

    def noting(self, fn: Callable[..., T]) -> Callable[..., T]:
        """Return a function that does what `fn`, a method of the connection or of a cursor, does, and notes it."""

        def run(*args: Any, **kwargs: Any) -> T:
            result = fn(*args, **kwargs)
            if getattr(fn, "__name__", "") in ("commit", "rollback"):
                self.forget()
            elif any(issubclass(type(each), str) and _CHANGES_SCHEMA.search(each) for each in args):
                self._schema = True
            return result

        # Under the names by which the statements are known.
        run.__name__ = getattr(fn, "__name__", "")
        run.__self__ = getattr(fn, "__self__", None)  # type: ignore[attr-defined]
        return run


_CHANGES_SCHEMA: Final = re.compile(
    # Atomic: what skips the comments must not try every other way to read them.
    r"(^|;)(?>(?:\s|--[^\n]*\n|/\*.*?\*/)*)(create|alter|drop)\b",
    re.IGNORECASE | re.DOTALL,
)
