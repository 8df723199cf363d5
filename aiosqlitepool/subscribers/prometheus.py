"""Metrics for Prometheus, through prometheus_client: `PrometheusSubscriber`.

The numbers themselves are kept by one of two back-ends: `_inprocess`, or, where prometheus_client works in several
processes (`PROMETHEUS_MULTIPROC_DIR`), `_multiprocess`.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from typing import Any, Protocol

from aiosqlitepool import SQLiteConnectionPool

from ._detach import Detach
from ._metrics import (
    CREATE_BUCKETS,
    TRANSACTION_BUCKETS,
    USE_BUCKETS,
    WAIT_BUCKETS,
    Buckets,
    checked_bounds,
    checked_seconds,
)

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import Metric as Family
except ModuleNotFoundError as _error:
    hint = "aiosqlitepool.subscribers.prometheus needs prometheus_client: pip install 'aiosqlitepool[prometheus]'"
    raise ModuleNotFoundError(f"{hint} ({_error})", name=_error.name) from _error

__all__ = ["PrometheusSubscriber"]

AnyPool = SQLiteConnectionPool[Any]


class Backend(Protocol):
    """Where the numbers of one registry are kept."""

    buckets: Buckets

    def attach(self, pool: AnyPool, exemplars_from: float | None) -> Detach:
        """Count what this pool does."""
        ...

    def refresh(self) -> None:
        """Bring the levels up to date, if a scrape would not do so by itself."""
        ...

    def describe(self) -> Iterable[Family]:
        """The families that `collect` returns, without samples."""
        ...

    def collect(self) -> Iterable[Family]:
        """The families at this moment, in any thread."""
        ...


class PrometheusSubscriber:
    """Shows what pools do to Prometheus. One subscriber serves any number of pools, and so does one registry.

    In several processes, with `PROMETHEUS_MULTIPROC_DIR` set, waits have no exemplars, and levels and times are up to a
    second old: a process that is killed never writes its last ones. One that ends must be told of with
    `prometheus_client.multiprocess.mark_process_dead`, as always.

    Args:
        registry: where the metrics are registered; prometheus_client's own if not given.
        wait_buckets: upper bounds of the buckets of the time to obtain a connection. Seconds, as are all bounds.
        create_buckets: upper bounds of the buckets of the time to open a connection.
        use_buckets: upper bounds of the buckets of the time for which connections are out.
        transaction_buckets: upper bounds of the buckets of the time that transactions of a `SQLiteDatabase` take.
        slow_acquire: an acquire that queued, or took this many seconds, is an exemplar if its trace is sampled.
        exemplars: whether there are any.

    Raises `ValueError` if the registry has a metric of one of the names already, or ours with other buckets; nothing
    is registered then.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        wait_buckets: Iterable[float] = WAIT_BUCKETS,
        create_buckets: Iterable[float] = CREATE_BUCKETS,
        use_buckets: Iterable[float] = USE_BUCKETS,
        transaction_buckets: Iterable[float] = TRANSACTION_BUCKETS,
        slow_acquire: float = 0.05,
        exemplars: bool = True,
    ) -> None:
        buckets = checked_bounds(wait_buckets, create_buckets, use_buckets, transaction_buckets)
        slow_acquire = checked_seconds("slow_acquire", slow_acquire)
        self._exemplars_from = slow_acquire if exemplars else None
        self._backend = _backend_of(REGISTRY if registry is None else registry, buckets)

    def attach(self, pool: AnyPool, /) -> Detach:
        """Count what `pool` does from now on. Its levels go when it closes or is detached, its counters stay."""
        return self._backend.attach(pool, self._exemplars_from)

    def refresh(self) -> None:
        """Bring this process's levels up to date now; needed by nobody who can wait a second."""
        self._backend.refresh()


# A registry has one back-end, however many subscribers there are: it refuses a name that it has already.
_backends: weakref.WeakKeyDictionary[CollectorRegistry, Backend] = weakref.WeakKeyDictionary()


def _backend_of(registry: CollectorRegistry, buckets: Buckets) -> Backend:
    shared = _backends.get(registry)
    backend = shared or _new_backend(buckets)
    try:
        registry.register(backend)
    except ValueError as error:
        if shared is None:
            raise ValueError(f"the registry has metrics of these names already: {error}") from error
    for metric, bounds in buckets.items():
        if backend.buckets[metric] != bounds:
            raise ValueError(
                f"the registry has {metric.family} already, with buckets {backend.buckets[metric]}, not {bounds}"
            )
    _backends[registry] = backend
    return backend


def _new_backend(buckets: Buckets) -> Backend:
    # prometheus_client asks the same when it is imported.
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ or "prometheus_multiproc_dir" in os.environ:
        from ._prometheus_multiprocess import MultiprocessBackend

        return MultiprocessBackend(buckets)
    from ._prometheus_inprocess import InProcessBackend

    return InProcessBackend(buckets)
