"""The exceptions that the pool raises. Exceptions of the driver pass through unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NoReturn, get_args

from .kinds import DatabaseCode
from .stats import Holder, PoolStats

__all__ = [
    "PoolClosedError",
    "PoolConnectionAcquireTimeoutError",
    "PoolError",
    "PoolFullError",
    "PoolUsageError",
]


class PoolError(Exception):
    """Parent of all exceptions that the pool itself raises."""

    @property
    def message(self) -> str:
        """The text of the error, under its name in version 1.0."""
        return str(self)


class PoolClosedError(PoolError):
    """The pool is closed, or was closed while the caller waited."""


class PoolFullError(PoolError):
    """`max_waiting` callers were waiting already; this one was not queued."""


class PoolConnectionAcquireTimeoutError(PoolError, TimeoutError):
    """No connection could be acquired within `acquisition_timeout`. The message is a diagnosis.

    `waited` is in seconds. `stats` and `holders` are the pool at the time of the error, holders oldest first.
    """

    def __init__(
        self,
        message: str = "no connection could be acquired from the pool in time",
        *,
        waited: float = 0.0,
        stats: PoolStats | None = None,
        holders: tuple[Holder, ...] = (),
    ) -> None:
        super().__init__(message)
        self.waited = waited
        self.stats = stats
        self.holders = holders


class ConnectionBrokenError(PoolError):
    """A connection is unusable: its worker thread has died, it was closed, or its database file was replaced."""


class PoolUsageError(PoolError, RuntimeError):
    """The pool or a connection was used in a way that cannot work: in another loop, after a fork, after release."""


_DATABASE_CODES: Final = frozenset(get_args(DatabaseCode))


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An exception as plain data: an event keeps no traceback and no frame alive."""

    type: str
    message: str
    # The name of SQLite's extended error code, such as "SQLITE_IOERR_WRITE", if SQLite raised the exception.
    code: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> ErrorInfo:
        """Describe `error`. `type` follows OpenTelemetry's `error.type`: qualified unless it is a builtin."""
        return cls(error_name(error), str(error), getattr(error, "sqlite_errorname", None))

    @property
    def database_code(self) -> str | None:
        """The name of SQLite's primary error code, a `DatabaseCode`; `None` if it was not the database that failed."""
        # SQLITE_IOERR_WRITE is an extended code of SQLITE_IOERR: no name of a primary code has a second underscore.
        primary = "_".join((self.code or "").split("_")[:2])
        return primary if primary in _DATABASE_CODES else None

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


def error_name(error: BaseException) -> str:
    """Return the name of an exception's class, with its module unless it is a builtin."""
    kind = type(error)
    prefix = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{prefix}{kind.__qualname__}"


class _Absent:
    """An attribute that objects of a class do not have. The error says where to find it.

    Not by `__getattr__`: it slows down each access to an attribute that they do have.
    """

    __slots__ = ("_hint", "_name")

    def __init__(self, name: str, hint: Callable[[Any, str], str]) -> None:
        self._name, self._hint = name, hint

    def __get__(self, owner: object, kind: type) -> NoReturn:
        name, hint = self._name, self._hint(kind, self._name)
        raise AttributeError(
            f"{kind.__name__.lstrip('_')!r} object has no attribute {name!r}{hint}", name=name, obj=owner
        )


def set_absent(kind: type, of: type, hint: Callable[[Any, str], str]) -> None:
    """Let objects of `kind` refuse the public attributes that only objects of class `of` have, with a hint."""
    absent = {name for name in dir(of) if not name.startswith("_") and not hasattr(kind, name)}
    for name in absent:
        setattr(kind, name, _Absent(name, hint))

    def present(owner: object) -> Iterable[str]:
        return set(object.__dir__(owner)) - absent

    setattr(kind, "__dir__", present)  # noqa: B010 - mypy takes it for a method of `type`
