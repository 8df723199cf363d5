from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable
from contextvars import copy_context

import pytest

from aiosqlitepool.copying import CapturedContext
from aiosqlitepool.events import ConnectionReleased, PoolTimings, SlowWait, StatementKind, StatementTimings
from aiosqlitepool.subscribers import _opentelemetry_deferred
from aiosqlitepool.subscribers._metrics import OPERATION_DURATION, USE_TIME, WAIT_TIME, Metric, Values
from aiosqlitepool.subscribers._opentelemetry_deferred import DeferredCounts, record_deferred

SELECT = ("SELECT", "", "SELECT t", "app.db")


class Recorded:
    """The durations that were recorded, by metric and values."""

    def __init__(self) -> None:
        self.durations: defaultdict[tuple[Metric, Values], list[float]] = defaultdict(list)

    def __call__(self, metric: Metric, pool: str, values: Values, durations: Iterable[float]) -> None:
        assert pool == "app.db/read"
        self.durations[metric, values].extend(durations)

    def __len__(self) -> int:
        return sum(map(len, self.durations.values()))

    def of(self, metric: Metric, *values: str) -> list[float]:
        return self.durations[metric, values]


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture
def counts(recorded: Recorded) -> DeferredCounts:
    return DeferredCounts("app.db/read", recorded, statement_summaries=1)


def add(
    counts: DeferredCounts,
    *uses: float,
    immediate: int = 0,
    waits: tuple[float, ...] = (),
    runs: tuple[float, ...] = (),
) -> None:
    """One batch of everything."""
    timings = PoolTimings("app.db/read", immediate, {"queued": waits}, (), uses)
    counts.add_timings(timings)
    counts.add_uses(timings)
    counts.add_statements(StatementTimings("app.db/read", {StatementKind("SELECT", "SELECT t", None): runs}))


def test_durations_are_recorded_later_and_once(recorded: Recorded, counts: DeferredCounts) -> None:
    add(counts, 1.0, 2.0, immediate=2, waits=(0.5,), runs=(0.1, 0.2))
    assert (len(recorded), len(counts)) == (0, 7)
    for _ in range(2):
        record_deferred((counts,), 10)
    assert recorded.of(WAIT_TIME, "") == [0.0, 0.0, 0.5]
    assert recorded.of(USE_TIME, "") == [1.0, 2.0]
    assert recorded.of(OPERATION_DURATION, *SELECT) == [0.1, 0.2]


def test_slow_waits_are_deferred_unless_they_are_recorded_already(recorded: Recorded, counts: DeferredCounts) -> None:
    context = CapturedContext(copy_context())
    slow = [SlowWait("queued", seconds, context) for seconds in (0.1, 0.2, 0.3)]
    counts.add_timings(PoolTimings("app.db/read", 0, {}, slow, ()), recorded={1: "its trace"})
    record_deferred((counts,), 10)
    assert recorded.of(WAIT_TIME, "") == [0.1, 0.3]


def test_statements_are_told_apart_by_operation_error_and_the_first_summaries(
    recorded: Recorded, counts: DeferredCounts
) -> None:
    kinds = (
        StatementKind("SELECT", "SELECT t", None),
        StatementKind("SELECT", "SELECT t", "sqlite3.OperationalError"),
        StatementKind("INSERT", "INSERT t", None),
        StatementKind("INSERT", "INSERT u", None),
    )
    counts.add_statements(StatementTimings("app.db/read", dict.fromkeys(kinds, (1.0,))))
    record_deferred((counts,), 10)
    assert {values: durations for (_, values), durations in recorded.durations.items()} == {
        SELECT: [1.0],
        ("SELECT", "sqlite3.OperationalError", "SELECT t", "app.db"): [1.0],
        ("INSERT", "", "other", "app.db"): [1.0, 1.0],
    }


def test_uses_are_told_apart_by_label(recorded: Recorded, counts: DeferredCounts) -> None:
    for label in ("GET /", None, "GET /"):
        counts.add_use(ConnectionReleased("app.db/read", 1, 0.5, label))
    record_deferred((counts,), 10)
    assert (recorded.of(USE_TIME, "GET /"), recorded.of(USE_TIME, "")) == ([0.5, 0.5], [0.5])


def test_a_full_backlog_is_bounded_and_the_excess_is_recorded_as_it_comes(
    monkeypatch: pytest.MonkeyPatch, recorded: Recorded, counts: DeferredCounts
) -> None:
    monkeypatch.setattr(_opentelemetry_deferred, "_MOST", 100)
    threads = set(threading.enumerate())
    for _ in range(10):
        add(counts, *[1.0] * 64, immediate=64, runs=(1.0,) * 64)
    assert len(counts) == 100
    assert len(recorded) + len(counts) == 10 * 192
    record_deferred((counts,), 10)
    of_each = [len(recorded.of(*key)) for key in ((WAIT_TIME, ""), (USE_TIME, ""), (OPERATION_DURATION, *SELECT))]
    assert of_each == [640] * 3
    assert not set(threading.enumerate()) - threads, "recorded by a thread of its own"


def test_uses_by_label_are_bounded_by_the_next_batch(
    monkeypatch: pytest.MonkeyPatch, recorded: Recorded, counts: DeferredCounts
) -> None:
    monkeypatch.setattr(_opentelemetry_deferred, "_MOST", 100)
    for number in range(150):
        counts.add_use(ConnectionReleased("app.db/read", 1, 0.5, str(number)))
    assert len(counts) == 150
    add(counts)
    assert (len(counts), len(recorded)) == (100, 50)


def test_durations_are_recorded_before_the_numbers_are_moved(recorded: Recorded, counts: DeferredCounts) -> None:
    add(counts, 1.0, immediate=1)
    counts.move_to(DeferredCounts("_OTHER", recorded))
    assert (recorded.of(WAIT_TIME, ""), recorded.of(USE_TIME, ""), len(counts)) == ([0.0], [1.0], 0)


def test_two_collections_at_once_record_each_duration_once(recorded: Recorded, counts: DeferredCounts) -> None:
    for number in range(1000):
        add(counts, float(number))
    collections = [threading.Thread(target=record_deferred, args=((counts,), 60)) for _ in range(2)]
    for collection in collections:
        collection.start()
    for collection in collections:
        collection.join()
    assert sorted(recorded.of(USE_TIME, "")) == [float(number) for number in range(1000)]


def test_without_time_the_rest_is_left_for_the_next_collection(recorded: Recorded, counts: DeferredCounts) -> None:
    add(counts, *[1.0] * 1000)
    record_deferred((counts,), -1.0)
    assert len(recorded) == 0
    record_deferred((counts,), 60)
    assert len(recorded) == 1000
