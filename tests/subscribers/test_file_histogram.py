"""Histograms of the multiprocess mode: the numbers of prometheus_client's own, with a write for each bucket."""

from __future__ import annotations

import random
from collections.abc import Sequence

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, Histogram

from aiosqlitepool.subscribers._buckets import USE_BUCKETS
from aiosqlitepool.subscribers._file_histogram import FileHistograms
from aiosqlitepool.subscribers._metrics import USE_TIME

LABELS = ("app.db", "GET /", "sqlite")


def samples(histograms: FileHistograms | Histogram) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in histograms.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@pytest.mark.parametrize(
    ("many", "zeros"),
    [((), 0), ((), 3), ((0.0, 0.0005, 0.0006, 299.0, 300.0, 301.0, 1e9), 2), ((1.0,) * 64, 0)],
    ids=["nothing", "zeros", "bounds", "one bucket"],
)
def test_a_batch_shows_what_one_observation_after_the_other_does(many: Sequence[float], zeros: int) -> None:
    ours, each = FileHistograms(USE_TIME, USE_BUCKETS), FileHistograms(USE_TIME, USE_BUCKETS)
    theirs = Histogram(USE_TIME.family, "", USE_TIME.labels, buckets=USE_BUCKETS, registry=CollectorRegistry()).labels(
        *LABELS
    )
    ours.labels(*LABELS).observe_all(many, zeros)
    for seconds in (*many, *(0.0,) * zeros):
        each.labels(*LABELS).observe(seconds)
        theirs.observe(seconds)
    each.labels(*LABELS)
    expected = samples(theirs)
    assert samples(ours) == samples(each) == pytest.approx(expected)


def test_a_family_has_the_samples_of_all_series() -> None:
    histograms = FileHistograms(USE_TIME, (1.0,))
    for name in ("a.db", "b.db"):
        histograms.labels(name, "", "sqlite").observe(0.5)
    (family,) = histograms.collect()
    assert (family.name, family.type) == (USE_TIME.family, "histogram")
    counts = [sample.labels for sample in family.samples if sample.name.endswith("_count")]
    assert [labels["db_client_connection_pool_name"] for labels in counts] == ["a.db", "b.db"]


def test_a_batch_writes_each_of_its_buckets_once(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[float] = []

    class Value(prometheus_client.values.MutexValue):
        def inc(self, amount: float) -> None:
            written.append(amount)
            super().inc(amount)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(prometheus_client.values, "ValueClass", Value)
    histogram = FileHistograms(USE_TIME, USE_BUCKETS).labels(*LABELS)
    histogram.observe_all([random.uniform(0.002, 0.004) for _ in range(64)], zeros=64)
    assert written[:-1] == [64, 64]  # and last, the sum
    assert len(written) == 3
