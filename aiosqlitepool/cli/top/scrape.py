"""One look at a metrics endpoint: everything in it that a pool's subscribers put there. Knows nothing of its meaning.

Prometheus' text and OpenMetrics are read alike, and so are the labels that an OpenTelemetry exporter or a federation
adds: series that differ in nothing but those are one.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from ...subscribers._metrics import COUNT, COUNTERS, HISTOGRAMS, LEVELS, OLDEST_CHECKOUT, OLDEST_WAITER, POOL, Metric
from ...subscribers._metrics import label_name as spelled

__all__ = ["Scrape", "ScrapeError", "full_url", "scrape"]

_PATIENCE = 5.0  # seconds for an answer
_LARGEST = 64 * 2**20  # bytes of one
_OPENMETRICS = "application/openmetrics-text"
_ACCEPT = f"{_OPENMETRICS};version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"

_POOL = spelled(POOL)
# By the name of a sample, whose it is.
_NUMBERS = {
    **{metric.family: metric for metric in LEVELS},
    **{f"{metric.family}_total": metric for metric in COUNTERS},
}
_BUCKETS = {f"{metric.family}_bucket": metric for metric in HISTOGRAMS}
# Of several ages the oldest counts; all else adds up.
_AGES = (OLDEST_WAITER, OLDEST_CHECKOUT)


class ScrapeError(Exception):
    """The endpoint could not be read; the message says why, and what to look at."""


@dataclass(frozen=True)
class Scrape:
    """What an endpoint said at one moment: `at` is `time.monotonic()`.

    `numbers` are levels and counters by metric, pool and the value that tells it apart (or ""); `buckets` are how many
    observations of a histogram were at most each bound, by metric and pool.
    """

    at: float
    numbers: dict[tuple[Metric, str, str], float] = field(default_factory=dict)
    buckets: dict[tuple[Metric, str], dict[float, float]] = field(default_factory=dict)

    @property
    def pools(self) -> tuple[str, ...]:
        """The pools that are open, by name; of others there are counters at most."""
        return tuple(sorted({pool for metric, pool, _ in self.numbers if metric is COUNT}))

    def number(self, metric: Metric, pool: str, value: str | None = None) -> float:
        """One number, or, without a `value`, the sum of all of its metric; 0 if there is none."""
        if value is not None:
            return self.numbers.get((metric, pool, value), 0.0)
        return sum(number for (each, name, _), number in self.numbers.items() if each is metric and name == pool)

    def add(self, sample: Any) -> None:
        """Take in one sample, if it is ours."""
        pool = sample.labels.get(_POOL)
        if pool is None:
            return
        if (metric := _NUMBERS.get(sample.name)) is not None:
            value = sample.labels.get(metric.labels[-1], "") if metric.attribute is not None else ""
            key, before = (metric, pool, value), self.numbers.get((metric, pool, value), 0.0)
            self.numbers[key] = max(before, sample.value) if metric in _AGES else before + sample.value
        elif (metric := _BUCKETS.get(sample.name)) is not None:
            counts = self.buckets.setdefault((metric, pool), {})
            bound = float(sample.labels["le"])
            counts[bound] = counts.get(bound, 0.0) + sample.value


def full_url(text: str) -> str:
    """The address that somebody means: `localhost:8000` is `http://localhost:8000/metrics`.

    Raises `ValueError` for what is no address of a web server.
    """
    parts = _parts(text)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"must be an address like http://127.0.0.1:8000/metrics, not {text!r}")
    return urllib.parse.urlunsplit(parts._replace(path="/metrics" if parts.path in ("", "/") else parts.path))


def _parts(text: str) -> urllib.parse.SplitResult | None:
    try:
        parts = urllib.parse.urlsplit(text if "://" in text else f"http://{text}")
        return None if parts.port == 0 else parts
    except ValueError:  # brackets that do not match, or a port that is none
        return None


def scrape(url: str, clock: Callable[[], float] = time.monotonic) -> Scrape:
    """Ask the endpoint once. Raises `ScrapeError`, also if it has no metrics of a pool."""
    kind, text = _get(url)
    found = Scrape(clock())
    try:
        for family in _families(kind, text):
            for sample in family.samples:
                found.add(sample)
    except (ValueError, KeyError) as error:
        raise ScrapeError(f"{url} does not answer with metrics, but with {kind or 'something'}: {error}") from error
    if not found.pools:
        raise ScrapeError(
            f"{url} has no metrics of aiosqlitepool: is a PrometheusSubscriber (or an OpenTelemetrySubscriber and its "
            "exporter) attached to an open pool there?"
        )
    return found


def _families(kind: str, text: str) -> Iterable[Any]:
    parse: Callable[[str], Iterable[Any]] = parse_openmetrics if kind.startswith(_OPENMETRICS) else parse_text
    return parse(text)


def _get(url: str) -> tuple[str, str]:
    """The answer's content type and text."""
    request = urllib.request.Request(url, headers={"Accept": _ACCEPT, "User-Agent": "aiosqlitepool-top"})
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            kind, body = answer.headers.get("Content-Type", ""), answer.read(_LARGEST + 1)
    except urllib.error.HTTPError as error:
        error.close()
        raise ScrapeError(f"{url} answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ScrapeError(f"cannot reach {url}: {reason}") from error
    if len(body) > _LARGEST:
        raise ScrapeError(f"{url} answers with more than {_LARGEST // 2**20} MiB")
    return kind.partition(";")[0].strip().lower(), body.decode(errors="replace")
