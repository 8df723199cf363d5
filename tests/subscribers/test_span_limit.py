from __future__ import annotations

from aiosqlitepool.subscribers._span_limit import SpanLimit

from ..support.clock import Clock


def admitted(limit: SpanLimit, attempts: int) -> int:
    """How many of these attempts may write a span."""
    number = 0
    for _ in range(attempts):
        if limit.admits():
            limit.add()
            number += 1
    return number


def test_so_many_spans_are_admitted_in_each_second(clock: Clock) -> None:
    limit = SpanLimit(3, clock)
    found = []
    for _ in range(3):
        found.append(admitted(limit, 10))
        clock.advance(0.5)
    assert found == [3, 0, 3]


def test_those_that_are_left_out_are_counted_once(clock: Clock) -> None:
    limit = SpanLimit(3, clock)
    admitted(limit, 10)
    assert [limit.take_left_out() for _ in range(2)] == [7, 0]


def test_one_that_was_admitted_and_not_written_does_not_count(clock: Clock) -> None:
    limit = SpanLimit(1, clock)
    assert [limit.admits() for _ in range(3)] == [True] * 3
    assert admitted(limit, 3) == 1


def test_without_a_limit_each_one_is_admitted(clock: Clock) -> None:
    assert admitted(SpanLimit(None, clock), 1_000) == 1_000
