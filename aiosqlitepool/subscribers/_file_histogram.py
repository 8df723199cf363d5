"""A histogram of prometheus_client's multiprocess mode that writes a whole batch at once. Knows no pool.

prometheus_client's own `Histogram` writes two numbers to its file for each observation, 2.4 µs. A batch has hundreds,
and most are in a few buckets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import values as prometheus_values
from prometheus_client.core import Metric as Family

from ._buckets import Bounds, by_bucket
from ._metrics import Metric

__all__ = ["FileHistogram", "FileHistograms"]


class FileHistogram:
    """One series: the observations by bucket, and their sum. Callers see to it that one thread writes at a time."""

    __slots__ = ("_bounds", "_buckets", "_labels", "_sum")

    def __init__(self, metric: Metric, bounds: Bounds, labels: Sequence[str]) -> None:
        # The class that makes values is documented: servers such as uWSGI replace it. It is looked up for each series.
        new, common = prometheus_values.ValueClass, ("histogram", metric.family)
        names, about = metric.labels, metric.description
        self._bounds, self._labels = bounds, dict(zip(names, labels, strict=True))
        self._sum: Any = new(*common, f"{metric.family}_sum", names, labels, about)
        self._buckets: list[Any] = [
            new(*common, f"{metric.family}_bucket", (*names, "le"), (*labels, bound), about) for bound in self._upper()
        ]

    def _upper(self) -> tuple[str, ...]:
        return (*map(str, self._bounds), "+Inf")

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self._buckets[bisect_left(self._bounds, seconds)].inc(1)
        self._sum.inc(seconds)

    def observe_all(self, many: Iterable[float], zeros: int = 0) -> None:
        """Count these observations, and `zeros` observations of 0 seconds."""
        ordered = sorted(many)
        for bucket, number in by_bucket(self._bounds, ordered, zeros):
            self._buckets[bucket].inc(number)
        self._sum.inc(sum(ordered))

    def add_samples(self, family: Family) -> None:
        """Add the samples of this process to the family."""
        below = tuple(accumulate(bucket.get() for bucket in self._buckets))
        for bound, number in zip(self._upper(), below, strict=True):
            family.add_sample(f"{family.name}_bucket", {**self._labels, "le": bound}, number)
        family.add_sample(f"{family.name}_count", self._labels, below[-1])
        family.add_sample(f"{family.name}_sum", self._labels, self._sum.get())


class FileHistograms:
    """All series of one metric."""

    def __init__(self, metric: Metric, bounds: Bounds) -> None:
        self._metric, self._bounds = metric, bounds
        self._series: dict[tuple[str, ...], FileHistogram] = {}

    def labels(self, *values: str) -> FileHistogram:
        """Return the series of these values of all labels."""
        if values not in self._series:
            self._series[values] = FileHistogram(self._metric, self._bounds, values)
        return self._series[values]

    def describe(self) -> Iterator[Family]:
        """Yield the family, without samples."""
        yield Family(self._metric.family, self._metric.description, "histogram")

    def collect(self) -> Iterator[Family]:
        """Yield the family with the samples of this process."""
        for family in self.describe():
            for series in list(self._series.values()):
                series.add_samples(family)
            yield family
