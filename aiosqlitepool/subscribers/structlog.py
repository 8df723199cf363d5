"""Log records for structlog: `StructlogSubscriber`.

Uses the structlog configuration of the program. Events whose level is off are not subscribed to. Records that a full
pool would repeat without end are limited, and the next one says how many were left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from aiosqlitepool import SQLiteConnectionPool

from ._common import Detach, together
from ._structlog_records import PoolLog

try:
    import structlog
except ModuleNotFoundError as _error:
    hint = "aiosqlitepool.subscribers.structlog needs structlog: pip install 'aiosqlitepool[structlog]'"
    raise ModuleNotFoundError(f"{hint} ({_error})", name=_error.name) from _error

__all__ = ["StructlogSubscriber"]


class StructlogSubscriber:
    """Logs the events of pools. One subscriber serves any number of pools.

    Which levels are enabled is read when a pool is attached. An acquire that takes the pool's `slow_acquire` seconds
    logs a warning, and so does a statement that runs for its `slow_statement` seconds.

    Args:
        logger: a structlog logger; `structlog.get_logger("aiosqlitepool")` if not given.
        burst: warnings, or errors, of one name that a pool may log in one `interval`.
        interval: seconds.
        clock: returns the time in seconds, as `time.monotonic`.

    Raises:
        TypeError, ValueError: an argument is invalid; the message names it.
    """

    def __init__(
        self,
        logger: Any = None,
        *,
        burst: int = 5,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if logger is not None and not hasattr(logger, "bind"):
            raise TypeError(f"logger must be a structlog logger, not {logger!r}; structlog.wrap_logger() makes it one")
        if isinstance(burst, bool) or not isinstance(burst, int) or burst < 1:
            raise ValueError(f"burst must be a whole number, at least 1, not {burst!r}")
        if not callable(clock):
            raise TypeError(f"clock must be callable, not {clock!r}")
        self._logger = structlog.get_logger("aiosqlitepool") if logger is None else logger
        # Each call of `get_logger` returns another proxy of one logger.
        self._owner = StructlogSubscriber if logger is None else logger
        self._limit = (burst, _checked_interval(interval), clock)

    def attach(self, pool: SQLiteConnectionPool[Any], /) -> Detach:
        """Log the events of `pool` from now on. A logger logs each event once: the first subscriber with it does."""
        return pool.events.attach_once(self._owner, lambda: self._attach(pool))

    def _attach(self, pool: SQLiteConnectionPool[Any]) -> Detach:
        logger = _synchronous(self._logger)
        log = PoolLog(logger, pool, *self._limit)
        return together(
            [
                pool.events.subscribe(event_type, handler)
                for event_type, level, handler in log.handlers()
                if _is_on(logger, level)
            ]
        )


def _checked_interval(interval: float) -> float:
    if isinstance(interval, bool) or not isinstance(interval, int | float) or not interval >= 0:
        raise ValueError(f"interval must be 0 or more seconds, not {interval!r}")
    return float(interval)


def _synchronous(logger: Any) -> Any:
    # A handler cannot await, and an AsyncBoundLogger logs nothing unless it is awaited.
    bound = logger.bind()
    return bound.sync_bl if isinstance(bound, structlog.stdlib.AsyncBoundLogger) else logger


def _is_on(logger: Any, level: int) -> bool:
    # Looked up on the class: some loggers have every attribute.
    bound = logger.bind()
    for name in ("is_enabled_for", "isEnabledFor"):
        if hasattr(type(bound), name):
            try:
                return bool(getattr(bound, name)(level))
            except Exception:  # of the logger that it wraps: structlog.PrintLogger, for example, cannot say
                return True
    return True
