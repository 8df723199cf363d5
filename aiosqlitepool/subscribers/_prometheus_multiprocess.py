"""The Prometheus metrics where several processes share one: prometheus_client's own counters, histograms and gauges.

prometheus_client's multiprocess mode knows no collectors: a scrape, in whichever process, reads files that all of them
write. So what events tell is written as it is told, and the rest once a second: levels, and times that were noted.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import Metric as Family

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.events import (
    AcquireCancelled,
    AcquireFailed,
    AcquireRejected,
    AcquireTimedOut,
    ConnectionCreated,
    TimesNoted,
    TransactionEnded,
)

from ._counts import Series, counting, levels, open_pools
from ._detach import Detach, together
from ._metrics import (
    ACQUIRES,
    COUNTERS,
    CREATE_TIME,
    HISTOGRAMS,
    LEVELS,
    SUBSCRIBER_ERRORS,
    TRANSACTION_TIME,
    TRANSACTION_WAIT,
    USE_TIME,
    WAIT_TIME,
    Buckets,
    Metric,
    error_type,
)

__all__ = ["MultiprocessBackend"]

AnyPool = SQLiteConnectionPool[Any]

# Seconds between two looks at the levels. A scrape comes every ten or more.
_INTERVAL = 1.0


class MultiprocessBackend:
    """The metrics of one registry in prometheus_client's multiprocess mode."""

    def __init__(self, buckets: Buckets) -> None:
        self.buckets = buckets
        # Registered together, as one collector, so that a name taken already leaves none of them behind.
        self._counters = {m: Counter(m.family, m.description, m.labels, registry=None) for m in COUNTERS}
        self._gauges = {m: _gauge(m) for m in LEVELS}
        self._histograms = {
            m: Histogram(m.family, m.description, m.labels, registry=None, buckets=buckets[m]) for m in HISTOGRAMS
        }
        self._watch = _Watch(self._set_levels, self._count_errors)

    def describe(self) -> Iterator[Family]:
        """Every family, without samples."""
        for metric in self._all():
            yield from metric.describe()

    def collect(self) -> Iterator[Family]:
        """What this process alone has to tell."""
        for metric in self._all():
            yield from metric.collect()

    def _all(self) -> tuple[Counter | Gauge | Histogram, ...]:
        return (*self._counters.values(), *self._gauges.values(), *self._histograms.values())

    def refresh(self) -> None:
        """Bring the levels and times of this process up to date."""
        self._watch.look()

    def attach(self, pool: AnyPool, exemplars_from: float | None) -> Detach:
        """Count what this pool does. There are no exemplars in this mode."""
        name = pool.name
        shown = [each for each in (*COUNTERS, *HISTOGRAMS) if pool.stats().role is not None or not each.database]
        for metric in shown:
            for value in metric.known or ("",):
                family = self._counters[metric] if metric.kind == "counter" else self._histograms[metric]
                family.labels(*(name, value)[: len(metric.labels)])
        detaches = [pool.events.subscribe(kind, handler) for kind, handler in self._handlers(name)]
        detaches.append(pool.events.subscribe(TimesNoted, self._noted(name)))
        detaches.append(self._watch.begin(pool))
        return together(detaches)

    def _handlers(self, pool: str) -> Iterator[tuple[Any, Callable[[Any], None]]]:
        def count(metric: Metric, value: str = "") -> None:
            self._counters[metric].labels(*(pool, value)[: len(metric.labels)]).inc()

        def fail(event: Any, kind: str) -> None:
            self._histograms[WAIT_TIME].labels(pool, kind).observe(event.wait_time)

        created = self._histograms[CREATE_TIME].labels(pool).observe

        def ended(event: TransactionEnded) -> None:
            self._histograms[TRANSACTION_TIME].labels(pool, event.outcome).observe(event.duration)
            self._histograms[TRANSACTION_WAIT].labels(pool).observe(event.wait_time)

        yield ConnectionCreated, lambda event: created(event.create_time)
        yield AcquireTimedOut, lambda event: fail(event, "timeout")
        yield AcquireCancelled, lambda event: fail(event, "cancelled")
        yield AcquireRejected, lambda event: fail(event, "rejected")
        yield AcquireFailed, lambda event: fail(event, error_type(event.error))
        yield TransactionEnded, ended
        yield from counting(count)

    def _noted(self, pool: str) -> Callable[[TimesNoted], None]:
        acquired = {path: self._counters[ACQUIRES].labels(pool, path).inc for path in ACQUIRES.known}
        waited = self._histograms[WAIT_TIME].labels(pool, "").observe
        used = self._histograms[USE_TIME].labels(pool).observe

        def noted(times: TimesNoted) -> None:
            acquired["idle"](times.at_once)
            for path, waits in times.waits.items():
                acquired[path](len(waits))
            for seconds in chain(repeat(0.0, times.at_once), *times.waits.values()):
                waited(seconds)
            for seconds in times.uses:
                used(seconds)

        return noted

    def _set_levels(self, series: dict[Series, float]) -> None:
        for (metric, pool, value), number in series.items():
            self._gauges[metric].labels(*(pool, value)[: len(metric.labels)]).set(number)

    def _count_errors(self, pool: str, more: int) -> None:
        self._counters[SUBSCRIBER_ERRORS].labels(pool).inc(more)


def _gauge(metric: Metric) -> Gauge:
    # Ages of two processes are not added up; and no process counts that has ended.
    mode = "livesum" if metric.kind == "level" else "livemax"
    return Gauge(metric.family, metric.description, metric.labels, registry=None, multiprocess_mode=mode)  # type: ignore[arg-type]


class _Watch:
    """Looks at the levels and times of all attached pools once a second, in a thread that runs while there are any."""

    def __init__(
        self, set_levels: Callable[[dict[Series, float]], None], count_errors: Callable[[str, int], None]
    ) -> None:
        self._set_levels = set_levels
        self._count_errors = count_errors
        # Guards what follows, and that one look is written whole. Reentrant: see Ledger.
        self._lock = threading.RLock()
        # Each attached pool, and how many errors of its subscribers are counted already.
        self._pools: dict[object, tuple[weakref.ref[AnyPool], int]] = {}
        self._last: dict[Series, float] = {}
        self._thread: threading.Thread | None = None
        atexit.register(self._end)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def begin(self, pool: AnyPool) -> Detach:
        """Look at this pool too, until the function returned is called."""
        key = object()
        with self._lock:
            self._pools[key] = (weakref.ref(pool), pool.stats().subscriber_errors)
        self.look()

        def end() -> None:
            self.look()
            with self._lock:
                self._pools.pop(key, None)
            self.look()

        return end

    def look(self) -> None:
        """Write the levels and times as they are now; a level that is no longer there is 0."""
        with self._lock:
            attached = [ref() for ref, _ in self._pools.values()]
        # Whoever is told may do anything, also look here.
        for each in attached:
            if each is not None:
                each.events.tell_times()
        with self._lock:
            pools = {key: (ref(), counted) for key, (ref, counted) in self._pools.items()}
            found = levels(open_pools(pool for pool, _ in pools.values()))
            self._set_levels({**dict.fromkeys(self._last, 0.0), **found})
            self._last = found
            for key, (pool, counted) in pools.items():
                if pool is None:
                    del self._pools[key]
                elif more := pool.stats().subscriber_errors - counted:
                    self._pools[key] = (self._pools[key][0], counted + more)
                    self._count_errors(pool.name, more)
            # After a fork the thread that the parent started is not alive here.
            if self._pools and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="aiosqlitepool-levels", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(_INTERVAL)
            self.look()
            with self._lock:
                if not self._pools:
                    self._thread = None
                    return

    def _forked(self) -> None:
        # The parent's thread may have held it.
        self._lock = threading.RLock()

    def _end(self) -> None:
        # The files outlive the process, and nobody else would take its levels out of the sums.
        with self._lock:
            self._pools.clear()
            self.look()
