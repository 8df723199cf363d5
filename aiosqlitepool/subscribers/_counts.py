"""What the pools of one process did, as plain numbers: counters kept by events, levels read when asked.

Shared by the subscribers that show metrics; knows no metrics library. Counts are kept per attached pool, where each
has one writer at a time, and added up by pool name when read, which any thread may do.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from aiosqlitepool import PoolStats, SQLiteConnectionPool
from aiosqlitepool.events import (
    AcquireTimedOut,
    BusyRetried,
    Checkpointed,
    ConnectionClosed,
    ConnectionCreateFailed,
    HealthCheckFailed,
    PoolEvent,
    RolledBackOnReturn,
    TimesNoted,
)

from ._detach import Detach
from ._forks import renew_after_fork
from ._metrics import (
    ACQUIRES,
    BUSY_RETRIES,
    CHECKPOINTS,
    CLOSED,
    COUNT,
    COUNTERS,
    CREATE_FAILURES,
    HEALTH_FAILURES,
    IDLE_MAX,
    IDLE_MIN,
    MAX,
    OLDEST_CHECKOUT,
    OLDEST_WAITER,
    PENDING_REQUESTS,
    ROLLBACKS,
    SUBSCRIBER_ERRORS,
    TIMEOUTS,
    WAL_SIZE,
    Metric,
)

__all__ = ["Account", "Ledger", "Series", "counting", "levels", "open_pools"]

AnyPool = SQLiteConnectionPool[Any]
# A metric of one pool, and the value of the attribute that it is told apart by ("" if there is none).
Series = tuple[Metric, str, str]
A = TypeVar("A", bound="Account")


class Account:
    """The counts of one attached pool. Written by the pool's thread, and by one at a time that asks for its times."""

    __slots__ = ("_bus", "_errors_before", "_pool", "counts", "errors", "name")

    def __init__(self, name: str, pool: AnyPool | None = None) -> None:
        self.name = name
        # Weakly, so that a pool that was forgotten still ends, with its own warning. Its bus counts to the end.
        self._pool = None if pool is None else weakref.ref(pool)
        self._bus = None if pool is None else pool.events
        # Handlers that failed before, and those that the bus has counted since.
        self._errors_before = 0 if self._bus is None else self._bus.errors
        self.errors = 0
        # Every known value is there from the start, so that a counter's first increase is seen as one.
        role = None if pool is None else pool.stats().role
        self.counts: dict[tuple[Metric, str], int] = {
            (metric, value): 0
            for metric in COUNTERS
            if role is not None or not metric.database
            for value in _first_values(metric)
        }

    @property
    def pool(self) -> AnyPool | None:
        """The pool, as long as it exists."""
        return None if self._pool is None else self._pool()

    @property
    def over(self) -> bool:
        """Whether the pool no longer exists, and nothing more will be told of it."""
        return self.pool is None and (self._bus is None or self._bus.ended)

    def count(self, metric: Metric, value: str = "") -> None:
        """Add one."""
        self.counts[metric, value] = self.counts.get((metric, value), 0) + 1

    def note(self, times: TimesNoted) -> None:
        """Count the acquires that it tells of."""
        self.counts[ACQUIRES, "idle"] += times.at_once
        for path, waits in times.waits.items():
            self.counts[ACQUIRES, path] += len(waits)

    def ask(self) -> None:
        """Have the times told that nobody has heard of yet. Safe in any thread that holds no lock."""
        if (bus := self._bus) is not None:
            bus.tell_times()

    def look(self) -> None:
        """Note what the bus has counted since the pool was attached. Safe in any thread."""
        if (bus := self._bus) is not None:
            self.errors = bus.errors - self._errors_before

    def end(self) -> None:
        """Look for the last time."""
        self.look()
        self._bus = None

    def totals(self) -> dict[tuple[Metric, str], int]:
        """All counts at this moment. Safe in any thread."""
        totals = self.counts.copy()
        totals[SUBSCRIBER_ERRORS, ""] += self.errors
        return totals

    def absorb(self, other: Account) -> None:
        """Add another's counts, which are no longer written."""
        for key, value in other.totals().items():
            self.counts[key] = self.counts.get(key, 0) + value


def _first_values(metric: Metric) -> tuple[str, ...]:
    return metric.known if metric.attribute is not None else ("",)


def counting(count: Callable[..., None]) -> Iterator[tuple[type[PoolEvent], Callable[[Any], None]]]:
    """The events that are merely counted, and a handler for each that calls `count(metric, value)`."""
    yield AcquireTimedOut, lambda event: count(TIMEOUTS)
    yield ConnectionClosed, lambda event: count(CLOSED, event.reason)
    yield ConnectionCreateFailed, lambda event: count(CREATE_FAILURES, event.error.type)
    yield HealthCheckFailed, lambda event: count(HEALTH_FAILURES)
    yield RolledBackOnReturn, lambda event: count(ROLLBACKS, event.cause)
    yield BusyRetried, lambda event: count(BUSY_RETRIES, event.kind)
    yield Checkpointed, lambda event: count(CHECKPOINTS, event.result)


def open_pools(pools: Iterable[AnyPool | None]) -> Iterator[PoolStats]:
    """Snapshots of the pools that are not closed; each pool once."""
    for pool in {id(pool): pool for pool in pools if pool is not None}.values():
        stats = pool.stats()
        if stats.state not in ("closed", "forked"):
            yield stats


def levels(pools: Iterable[PoolStats]) -> dict[Series, float]:
    """The levels of these pools by name; those of one name are added up, of ages and WALs the greatest counts."""
    found: dict[Series, float] = {}
    for stats in pools:
        for metric, value, number in (
            (COUNT, "idle", stats.idle),
            (COUNT, "used", stats.used),
            (MAX, "", stats.max_size),
            (IDLE_MAX, "", stats.max_size),
            (IDLE_MIN, "", stats.min_size),
            (PENDING_REQUESTS, "", stats.waiting),
        ):
            found[metric, stats.pool, value] = found.get((metric, stats.pool, value), 0) + number
        for metric, most in (
            (OLDEST_WAITER, stats.oldest_waiter),
            (OLDEST_CHECKOUT, stats.oldest_checkout),
            (WAL_SIZE, stats.wal_bytes),
        ):
            if most is not None:
                found[metric, stats.pool, ""] = max(found.get((metric, stats.pool, ""), 0.0), most)
    return found


class Ledger(Generic[A]):
    """The accounts of all pools that feed the same metrics."""

    def __init__(self, new_account: Callable[[str, AnyPool | None], A]) -> None:
        self._new_account = new_account
        self.renew_lock()
        renew_after_fork(self)
        self._accounts: dict[int, A] = {}
        # By pool name, what pools did that were detached or no longer exist: counters outlive their pools.
        self._past: dict[str, A] = {}

    def renew_lock(self) -> None:
        """Take a new lock."""
        # Guards the accounts. Reentrant, because a pool may be garbage collected, and detach, at any allocation.
        self._lock = threading.RLock()

    def open(self, pool: AnyPool) -> tuple[A, list[Detach]]:
        """Begin an account and keep its counters; returns it, and what ends that."""
        account = self._new_account(pool.name, pool)
        with self._lock:
            self._accounts[id(account)] = account
        events = pool.events
        detaches = [events.subscribe(kind, handler) for kind, handler in counting(account.count)]
        return account, [*detaches, lambda: self._close(account)]

    def _close(self, account: A) -> None:
        with self._lock:
            if self._accounts.pop(id(account), None) is None:
                return
            account.end()
            past = self._past.get(account.name)
            if past is None:
                past = self._past[account.name] = self._new_account(account.name, None)
            past.absorb(account)

    @contextmanager
    def reading(self) -> Iterator[tuple[A, ...]]:
        """Every account, past ones among them; none of them ends while they are read. Safe in any thread."""
        with self._lock:
            accounts = tuple(self._accounts.values())
        # Whoever is told may do anything, also look here.
        for account in accounts:
            account.ask()
        with self._lock:
            for account in tuple(self._accounts.values()):
                account.look()
                if account.over:
                    self._close(account)
            yield (*self._past.values(), *self._accounts.values())

    def counters(self) -> dict[Series, int]:
        """Every counter by pool name. Safe in any thread."""
        sums: dict[Series, int] = {}
        with self.reading() as accounts:
            for account in accounts:
                for (metric, value), number in account.totals().items():
                    sums[metric, account.name, value] = sums.get((metric, account.name, value), 0) + number
        return sums

    def levels(self) -> dict[Series, float]:
        """Every level of the pools that are not closed, by pool name. Safe in any thread."""
        with self._lock:
            pools = [account.pool for account in self._accounts.values()]
        return levels(open_pools(pools))
