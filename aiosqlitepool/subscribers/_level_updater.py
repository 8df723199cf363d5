"""Writes the levels of one process for prometheus_client's multiprocess mode, where a scrape cannot ask for them."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable
from contextvars import Context

from aiosqlitepool.events import PoolClosed

from ._common import Detach, renew_after_fork
from ._ended_processes import forget_ended_processes
from ._levels import AnyPool, Series, lags, levels, open_pools
from ._loop_lag import PoolLag

__all__ = ["LevelUpdater"]

# Seconds between two updates of the levels. Scrapes are usually ten seconds or more apart.
_INTERVAL = 1.0


class LevelUpdater:
    """Writes the levels and pending timings of the attached pools once a second.

    Its thread runs while pools are attached.
    """

    def __init__(
        self, set_levels: Callable[[dict[Series, float]], None], count_errors: Callable[[str, int], None]
    ) -> None:
        self._set_levels = set_levels
        self._count_errors = count_errors
        # By key, each attached pool, its name in metrics, the lag of its loop, and how many exceptions of its handlers
        # are counted already.
        self._pools: dict[object, tuple[weakref.ref[AnyPool], str, PoolLag, int]] = {}
        self._last: dict[Series, float] = {}
        self._thread: threading.Thread | None = None
        self.renew_lock()
        renew_after_fork(self)
        atexit.register(self._close)

    def renew_lock(self) -> None:
        """Replace the lock."""
        # Guards the fields above, and that an update is written whole. Reentrant: see `Counts`.
        self._lock = threading.RLock()

    def add(self, pool: AnyPool, shown: str, lag: PoolLag) -> Detach:
        """Write the levels of this pool too, under the name `shown`. Returns a function that ends it."""
        key = object()
        with self._lock:
            self._pools[key] = (weakref.ref(pool), shown, lag, pool.stats().subscriber_errors)
        # Once the pool has closed, and not only when it is detached: a server may end by a signal, without `atexit`.
        end = pool.events.subscribe(PoolClosed, lambda _: self.update())
        self.update()

        def remove() -> None:
            end()
            self.update()
            with self._lock:
                self._pools.pop(key, None)
            self.update()

        return remove

    def update(self) -> None:
        """Write the current levels and pending timings. A level that no longer exists becomes 0."""
        with self._lock:
            attached = [ref() for ref, _, _, _ in self._pools.values()]
        # Without the lock: a handler of the timings may call this as well.
        for each in attached:
            if each is not None:
                each.events.flush_timings()
        with self._lock:
            pools = {key: (ref(), shown, lag, counted) for key, (ref, shown, lag, counted) in self._pools.items()}
            found = levels(open_pools((shown, pool) for pool, shown, _, _ in pools.values()))
            found |= lags((shown, lag) for pool, shown, lag, _ in pools.values() if pool is not None)
            self._set_levels({**dict.fromkeys(self._last, 0.0), **found})
            self._last = found
            for key, (pool, shown, lag, counted) in pools.items():
                if pool is None:
                    del self._pools[key]
                elif more := pool.stats().subscriber_errors - counted:
                    self._pools[key] = (weakref.ref(pool), shown, lag, counted + more)
                    self._count_errors(shown, more)
            # In a forked child, the thread of the parent is not alive.
            if self._pools and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="aiosqlitepool-levels", daemon=True)
                # From Python 3.14 a thread may keep a copy of the context in which it is started.
                Context().run(self._thread.start)

    def _run(self) -> None:
        while True:
            time.sleep(_INTERVAL)
            self.update()
            forget_ended_processes()
            with self._lock:
                if not self._pools:
                    self._thread = None
                    return

    def _close(self) -> None:
        # The files outlive the process: without this, its levels would stay in the sums.
        with self._lock:
            self._pools.clear()
            self.update()
