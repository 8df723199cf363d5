"""Scrape a metrics endpoint and keep the metrics of this package.

Reads Prometheus text and OpenMetrics. Ignores the labels that an OpenTelemetry exporter or a federation adds: series
that differ only in those are merged.
"""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from ...subscribers._attributes import POOL
from ...subscribers._metrics import COUNT, COUNTERS, HISTOGRAMS, LEVELS, OLDEST_CHECKOUT, OLDEST_WAITER, Metric
from ...subscribers._metrics import label_name as spelled
from .endpoint import DebugPageError, EndpointError, fetch, parts_of

__all__ = ["Scrape", "full_url", "scrape"]

_OPENMETRICS = "application/openmetrics-text"
_ACCEPT = f"{_OPENMETRICS};version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"

_POOL = spelled(POOL)
# The metric of each sample, by the name of the sample.
_NUMBERS = {
    **{metric.family: metric for metric in LEVELS},
    **{f"{metric.family}_total": metric for metric in COUNTERS},
}
_BUCKETS = {f"{metric.family}_bucket": metric for metric in HISTOGRAMS}
# Merged series of these metrics keep the maximum; all others are added up.
_AGES = (OLDEST_WAITER, OLDEST_CHECKOUT)


@dataclass(frozen=True)
class Scrape:
    """The metrics of one endpoint at one moment; `at` is the `time.monotonic()` of the scrape.

    `numbers` has levels and counters by metric, pool and the value of the metric's first label ("" if it has none).
    `buckets` has the cumulative counts of a histogram by upper bound, by metric and pool.
    """

    at: float
    numbers: dict[tuple[Metric, str, str], float] = field(default_factory=dict)
    buckets: dict[tuple[Metric, str], dict[float, float]] = field(default_factory=dict)

    @property
    def pools(self) -> tuple[str, ...]:
        """The names of the open pools, sorted. A closed pool has counters, but no levels."""
        return tuple(sorted({pool for metric, pool, _ in self.numbers if metric is COUNT}))

    def number(self, metric: Metric, pool: str, value: str | None = None) -> float:
        """Return the number for a label value, or without `value` the sum of the metric; 0 if there is no sample."""
        if value is not None:
            return self.numbers.get((metric, pool, value), 0.0)
        return sum(number for (each, name, _), number in self.numbers.items() if each is metric and name == pool)

    def add(self, sample: Any) -> None:
        """Add a sample if it is a metric of this package."""
        pool = sample.labels.get(_POOL)
        if pool is None:
            return
        if (metric := _NUMBERS.get(sample.name)) is not None:
            value = next((sample.labels.get(label, "") for label in metric.labels[1:]), "")
            key, before = (metric, pool, value), self.numbers.get((metric, pool, value), 0.0)
            self.numbers[key] = max(before, sample.value) if metric in _AGES else before + sample.value
        elif (metric := _BUCKETS.get(sample.name)) is not None:
            counts = self.buckets.setdefault((metric, pool), {})
            bound = float(sample.labels["le"])
            counts[bound] = counts.get(bound, 0.0) + sample.value


def full_url(text: str) -> str:
    """Complete a URL: `localhost:8000` becomes `http://localhost:8000/metrics`.

    Raises `ValueError` if `text` is not an HTTP address.
    """
    parts = parts_of(text, "http://127.0.0.1:8000/metrics")
    return urllib.parse.urlunsplit(parts._replace(path="/metrics" if parts.path in ("", "/") else parts.path))


def scrape(url: str, clock: Callable[[], float] = time.monotonic) -> Scrape:
    """Scrape the endpoint once. Raises `EndpointError` if it cannot be read or has no metrics of an open pool.

    If it is a debug page, raises `DebugPageError`.
    """
    kind, text = fetch(url, _ACCEPT)
    if _is_debug_page(kind, text):
        raise DebugPageError(f"{url} is a debug page")
    found = Scrape(clock())
    try:
        for family in _families(kind, text):
            for sample in family.samples:
                found.add(sample)
    except (ValueError, KeyError) as error:
        raise EndpointError(
            f"{url} returned no valid metrics, but {kind or 'content of unknown type'}: {error}"
        ) from error
    if not found.pools:
        raise EndpointError(
            f"{url} has no metrics of aiosqlitepool: attach a PrometheusSubscriber, or an OpenTelemetrySubscriber "
            "with a metrics exporter, to an open pool of that program"
        )
    return found


def _is_debug_page(kind: str, text: str) -> bool:
    """Return whether this is the page of `aiosqlitepool.debug`, or its JSON."""
    if kind == "text/html":
        return 'name="application-name" content="aiosqlitepool"' in text
    try:
        return kind == "application/json" and "pools" in json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return False


def _families(kind: str, text: str) -> Iterable[Any]:
    parse: Callable[[str], Iterable[Any]] = parse_openmetrics if kind.startswith(_OPENMETRICS) else parse_text
    return parse(text)
