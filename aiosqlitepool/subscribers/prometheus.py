"""Metrics for Prometheus, through prometheus_client: `PrometheusSubscriber`. All metrics are defined in `_metrics`.

One of two back-ends keeps the numbers: `_prometheus_inprocess`, or, in prometheus_client's multiprocess mode
(`PROMETHEUS_MULTIPROC_DIR`), `_prometheus_multiprocess`.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterable
from typing import Any, Protocol

from aiosqlitepool import SQLiteConnectionPool

from ._buckets import CREATE_BUCKETS, STATEMENT_BUCKETS, TRANSACTION_BUCKETS, USE_BUCKETS, WAIT_BUCKETS
from ._common import Detach
from ._settings import MetricSettings
from ._workers import workers

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import Metric as Family
except ModuleNotFoundError as _error:
    hint = "aiosqlitepool.subscribers.prometheus needs prometheus_client: pip install 'aiosqlitepool[prometheus]'"
    raise ModuleNotFoundError(f"{hint} ({_error})", name=_error.name) from _error

__all__ = ["PrometheusSubscriber"]

AnyPool = SQLiteConnectionPool[Any]

log: logging.Logger = logging.getLogger("aiosqlitepool")


class Backend(Protocol):
    """Keeps the numbers of one registry."""

    settings: MetricSettings

    def attach(self, pool: AnyPool, exemplars: bool) -> Detach:
        """Count the events of `pool`."""
        ...

    def refresh(self) -> None:
        """Update the levels, unless a scrape does so itself."""
        ...

    def describe(self) -> Iterable[Family]:
        """Return the families of `collect()`, without samples."""
        ...

    def collect(self) -> Iterable[Family]:
        """Return the families with their current samples. Safe in any thread."""
        ...


class PrometheusSubscriber:
    """Exports the metrics of pools to Prometheus. One subscriber, and one registry, serve any number of pools.

    A wait that reaches the pool's `slow_acquire` becomes an exemplar if its span is sampled.

    In several processes, with `PROMETHEUS_MULTIPROC_DIR` set before prometheus_client is imported, there are no
    exemplars, and levels and timings are up to a second old: a process that is killed does not write its last ones. The
    levels of processes that have ended leave the sums within a second, while another one runs. Serve a registry with
    `prometheus_client.multiprocess.MultiProcessCollector`, or each scrape sees one process. Without the variable, a
    warning says so if the arguments of the server, or `WEB_CONCURRENCY`, name several workers.

    Args:
        registry: the registry of the metrics; prometheus_client's default registry if not given.
        wait_buckets: upper bounds for the time to acquire a connection. Seconds, as are all bounds.
        create_buckets: upper bounds for the time to open a connection.
        use_buckets: upper bounds for the time from acquire to release.
        transaction_buckets: upper bounds for the duration of transactions of a `SQLiteDatabase`.
        statement_buckets: upper bounds for the time of a statement in its worker thread.
        statement_summaries: how many statements of a pool, those with the longest total time, are shown with that
            time, as `aiosqlitepool_statement_time_seconds_total`; 0 to 100. In several processes, each process shows
            those that it has met first, and the others as "other".
        by_label: whether the use time is shown by the labels of leases: the first 50 of a pool, the others as "other".
        exemplars: whether slow and failed waits become exemplars.

    Raises:
        ValueError: an argument is invalid; or the registry has a metric of one of the names already, or this package's
            metrics with other bounds, `statement_summaries` or `by_label`. Nothing is registered then.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        wait_buckets: Iterable[float] = WAIT_BUCKETS,
        create_buckets: Iterable[float] = CREATE_BUCKETS,
        use_buckets: Iterable[float] = USE_BUCKETS,
        transaction_buckets: Iterable[float] = TRANSACTION_BUCKETS,
        statement_buckets: Iterable[float] = STATEMENT_BUCKETS,
        statement_summaries: int = 0,
        by_label: bool = False,
        exemplars: bool = True,
    ) -> None:
        settings = MetricSettings.checked(
            wait_buckets=wait_buckets,
            create_buckets=create_buckets,
            use_buckets=use_buckets,
            transaction_buckets=transaction_buckets,
            statement_buckets=statement_buckets,
            statement_summaries=statement_summaries,
            by_label=by_label,
        )
        self._exemplars = exemplars
        self._backend = _backend_of(REGISTRY if registry is None else registry, settings)

    def attach(self, pool: AnyPool, /) -> Detach:
        """Count the events of `pool` from now on. Its levels end when it closes or is detached; its counters stay.

        A registry counts each event once, however many subscribers it has on this pool: the first one counts.
        """
        backend = self._backend
        return pool.events.attach_once(backend, lambda: backend.attach(pool, self._exemplars))

    def refresh(self) -> None:
        """Update the levels of this process now, instead of within a second. Matters in multiprocess mode only."""
        self._backend.refresh()


# One back-end per registry, for any number of subscribers: a registry refuses a second metric of the same name.
_backends: weakref.WeakKeyDictionary[CollectorRegistry, Backend] = weakref.WeakKeyDictionary()


def _backend_of(registry: CollectorRegistry, settings: MetricSettings) -> Backend:
    shared = _backends.get(registry)
    backend = shared or _new_backend(settings)
    try:
        registry.register(backend)
    except ValueError as error:
        if shared is None:
            raise ValueError(
                f"the registry has metrics of these names already: {error}; use another registry"
            ) from error
    backend.settings.check_same(settings, "registry")
    _backends[registry] = backend
    return backend


def _new_backend(settings: MetricSettings) -> Backend:
    # The condition that prometheus_client checks when it is imported.
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ or "prometheus_multiproc_dir" in os.environ:
        from ._prometheus_multiprocess import MultiprocessBackend

        return MultiprocessBackend(settings)
    from ._prometheus_inprocess import InProcessBackend

    if (number := workers()) > 1:
        log.warning(
            "%d worker processes, and PROMETHEUS_MULTIPROC_DIR is not set: each scrape sees one of them. Set it to an "
            "empty directory, and serve a registry with MultiProcessCollector",
            number,
        )
    return InProcessBackend(settings)
