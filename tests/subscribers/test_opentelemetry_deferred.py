from __future__ import annotations

import threading

import pytest

from aiosqlitepool.events import PoolTimings
from aiosqlitepool.subscribers import _opentelemetry_deferred
from aiosqlitepool.subscribers._opentelemetry_deferred import DeferredCounts, record_deferred

Recorded = list[tuple[str, float]]


def deferred(waits: Recorded, uses: Recorded) -> DeferredCounts:
    return DeferredCounts("app.db", lambda *wait: waits.append(wait), lambda *use: uses.append(use))


def batch(*uses: float, immediate: int = 0, waits: tuple[float, ...] = ()) -> PoolTimings:
    return PoolTimings("app.db", immediate, {"queued": waits}, (), uses)


def test_durations_are_recorded_later_and_once() -> None:
    waits, uses = Recorded(), Recorded()
    counts = deferred(waits, uses)
    counts.add_timings(batch(1.0, 2.0, immediate=2, waits=(0.5,)))
    assert (waits, uses, len(counts)) == ([], [], 5)
    for _ in range(2):
        record_deferred((counts,), 10)
    assert waits == [("app.db", 0.0), ("app.db", 0.0), ("app.db", 0.5)]
    assert uses == [("app.db", 1.0), ("app.db", 2.0)]


def test_a_full_backlog_is_bounded_and_the_excess_is_recorded_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_opentelemetry_deferred, "_MOST", 100)
    waits, uses = Recorded(), Recorded()
    counts, threads = deferred(waits, uses), threading.active_count()
    for _ in range(10):
        counts.add_timings(batch(*[1.0] * 64, immediate=64))
    assert len(counts) <= 100 + 128
    assert len(waits) + len(uses) + len(counts) == 10 * 128
    record_deferred((counts,), 10)
    assert (len(waits), len(uses), threading.active_count()) == (640, 640, threads)


def test_durations_are_recorded_before_they_are_dropped() -> None:
    waits, uses = Recorded(), Recorded()
    counts = deferred(waits, uses)
    counts.add_timings(batch(1.0, immediate=1))
    counts.drop()
    assert (waits, uses, len(counts)) == ([("app.db", 0.0)], [("app.db", 1.0)], 0)


def test_two_collections_at_once_record_each_duration_once() -> None:
    waits, uses = Recorded(), Recorded()
    counts = deferred(waits, uses)
    for number in range(1000):
        counts.add_timings(batch(float(number)))
    collections = [threading.Thread(target=record_deferred, args=((counts,), 60)) for _ in range(2)]
    for collection in collections:
        collection.start()
    for collection in collections:
        collection.join()
    assert sorted(seconds for _, seconds in uses) == [float(number) for number in range(1000)]


def test_without_time_the_rest_is_left_for_the_next_collection() -> None:
    waits, uses = Recorded(), Recorded()
    counts = deferred(waits, uses)
    counts.add_timings(batch(*[1.0] * 1000))
    record_deferred((counts,), -1.0)
    assert uses == []
    record_deferred((counts,), 60)
    assert len(uses) == 1000
