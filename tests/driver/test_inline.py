"""Which reads run in the loop's own thread: decided by steps of SQLite's virtual machine, and then by the clock."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator

import pytest

from aiosqlitepool.driver import read_inline
from aiosqlitepool.driver.generic_adapter import GenericAdapter
from aiosqlitepool.driver.inline import InlineReads, Reading, Unfinished
from aiosqlitepool.driver.machine import Machine

from ..support.clock import Clock

SHORT = "SELECT 1"
LONG = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) SELECT max(i) FROM n"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def inline(clock: Clock, preempted: list[None], disk: list[None]) -> InlineReads:
    return InlineReads(lambda: False, Machine(clock, lambda: len(preempted), lambda: len(disk)))


@pytest.fixture
def preempted() -> list[None]:
    """One for each time that the system has taken the processor away."""
    return []


@pytest.fixture
def disk() -> list[None]:
    """One for each time that the process has read from a disk."""
    return []


@pytest.fixture
async def native(clock: Clock) -> AsyncIterator[sqlite3.Connection]:
    native = sqlite3.connect(":memory:")
    native.create_function("sleep", 1, clock.advance)
    yield native
    native.close()


def read(inline: InlineReads, native: sqlite3.Connection, sql: str) -> list[tuple[object, ...]]:
    assert takes(inline, sql)
    return inline.read(inline.kind(sql), native, lambda: native.execute(sql).fetchall())


def takes(inline: InlineReads, sql: str) -> bool:
    return inline.takes(inline.kind(sql))


def refusals(inline: InlineReads, sql: str) -> int:
    """How often a statement goes to the worker before it is tried again."""
    return next(count for count in range(100_000) if takes(inline, sql))


async def test_a_short_read_runs_inline(inline: InlineReads, native: sqlite3.Connection) -> None:
    assert read(inline, native, SHORT) == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (1)",
        "PRAGMA cache_size",
        "SELECT * FROM pragma_busy_timeout",
        "EXPLAIN SELECT 1",
        "",
        "-- SELECT",
    ],
)
async def test_what_does_not_begin_as_a_read_goes_to_the_worker(inline: InlineReads, sql: str) -> None:
    assert not any(takes(inline, sql) for _ in range(20))


async def test_a_read_beyond_its_budget_is_interrupted_and_goes_to_the_worker_for_longer_and_longer(
    inline: InlineReads, native: sqlite3.Connection
) -> None:
    pauses = []
    for _ in range(12):
        with pytest.raises(Unfinished):
            read(inline, native, LONG)
        pauses.append(refusals(inline, LONG))
    assert pauses == [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_000, 10_000]
    assert native.execute(LONG).fetchall() == [(100_000,)]  # without the budget


async def test_a_statement_with_its_values_written_out_is_of_one_kind(
    inline: InlineReads, native: sqlite3.Connection
) -> None:
    with pytest.raises(Unfinished):
        read(inline, native, LONG)
    assert not takes(inline, LONG.replace("100000", "100001"))


async def test_a_read_that_is_slow_by_the_clock_twice_goes_to_the_worker(
    inline: InlineReads, native: sqlite3.Connection, clock: Clock
) -> None:
    def slow() -> int:
        clock.advance(0.002)
        return 1

    native.create_function("slow", 0, slow)
    sql = "SELECT slow()"
    read(inline, native, sql)
    assert read(inline, native, sql) == [(1,)]
    assert refusals(inline, sql) == 10


async def test_a_read_that_is_slow_because_the_machine_is_busy_stays(
    inline: InlineReads, native: sqlite3.Connection, clock: Clock, preempted: list[None]
) -> None:
    def preempt() -> None:
        preempted.append(None)
        clock.advance(0.01)

    native.create_function("preempt", 0, preempt)
    for _ in range(5):
        read(inline, native, "SELECT preempt()")
    assert takes(inline, "SELECT preempt()")


async def test_what_is_no_read_has_no_budget_on_a_connection_that_has_read(
    inline: InlineReads, native: sqlite3.Connection, clock: Clock
) -> None:
    """A pragma, a health check and a rollback were interrupted, once the time of the read before was over."""
    read(inline, native, SHORT)
    clock.advance(1.0)
    assert native.execute(LONG).fetchall() == [(100_000,)]


async def test_long_statements_are_not_kept(inline: InlineReads) -> None:
    for number in range(10):
        assert takes(inline, f"SELECT '{number * 'x' * 10_000}'")
    assert not any(len(sql) > 2_000 for sql in (*inline._kinds, *inline._normalized))


async def test_reads_that_are_slow_once_in_a_hundred_stay(inline: InlineReads, native: sqlite3.Connection) -> None:
    for number in range(1_000):
        read(inline, native, f"SELECT sleep({0.0 if number % 101 else 0.01})")
    assert takes(inline, "SELECT sleep(0)")


async def test_a_read_that_is_slow_now_and_then_goes_to_the_worker(
    inline: InlineReads, native: sqlite3.Connection
) -> None:
    """A file of which the system has most in memory: each read before and after a slow one is short."""
    for seconds in (0.01, 0.0, 0.0, 0.01):
        read(inline, native, f"SELECT sleep({seconds})")
    assert refusals(inline, "SELECT sleep(0.0)") == 10


async def test_on_a_cold_file_only_the_first_two_of_a_hundred_kinds_keep_the_loop_waiting(
    inline: InlineReads, native: sqlite3.Connection
) -> None:
    slow = [f"SELECT sleep(0.01) AS a{number}" for number in range(100)]
    ran = [sql for _ in range(100) for sql in slow if takes(inline, sql) and read(inline, native, sql)]
    # The two, and one to try after each pause: of 10 reads, of 20 and so on, in 10,000.
    assert len(ran) == 2 + 9
    assert ran[:2] == slow[:2]


async def test_no_read_is_tried_inline_while_the_process_reads_from_a_disk(
    inline: InlineReads, native: sqlite3.Connection, disk: list[None]
) -> None:
    for _ in range(2):
        read(inline, native, "SELECT sleep(0.01)")

    def is_tried() -> bool:
        disk.append(None)
        return takes(inline, SHORT)

    assert not any(is_tried() for _ in range(1_000))
    assert refusals(inline, SHORT) < 40


async def test_pauses_are_short_again_after_as_many_short_reads_as_the_next_would_have(
    inline: InlineReads, native: sqlite3.Connection
) -> None:
    pauses = []
    for number, short in enumerate((10, 10, 80, 10)):
        while inline._all.left <= 0:
            read(inline, native, f"SELECT sleep(0.01) AS a{number}")
        pauses.append(refusals(inline, SHORT))
        for _ in range(short):
            read(inline, native, SHORT)
    assert pauses == [10, 20, 40, 10]


async def test_a_read_that_takes_long_by_the_clock_is_interrupted(
    inline: InlineReads, native: sqlite3.Connection, clock: Clock
) -> None:
    native.create_function("wait", 0, lambda: clock.advance(0.001))
    sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500) SELECT wait() FROM n"
    with pytest.raises(Unfinished):
        read(inline, native, sql)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED])
async def test_a_read_that_would_have_to_wait_for_a_lock_goes_to_the_worker(
    inline: InlineReads, native: sqlite3.Connection, code: int
) -> None:
    def locked() -> None:
        error = sqlite3.OperationalError("locked")
        error.sqlite_errorcode = code
        raise error

    assert takes(inline, SHORT)
    with pytest.raises(Unfinished):
        inline.read(inline.kind(SHORT), native, locked)
    assert not takes(inline, SHORT)


async def test_an_error_of_the_statement_is_its_own(inline: InlineReads, native: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        read(inline, native, "SELECT * FROM absent")
    assert takes(inline, "SELECT * FROM absent")


async def test_statements_beyond_five_hundred_are_forgotten(inline: InlineReads) -> None:
    for number in range(2_000):
        takes(inline, f"SELECT {number} FROM t{number}")
    assert len(inline._kinds) <= 500
    assert len(inline._normalized) <= 500


async def test_a_connection_without_a_worker_of_the_pool_reads_as_it_does(inline: InlineReads) -> None:
    adapter = GenericAdapter(object())  # type: ignore[arg-type]
    with pytest.raises(Unfinished):
        read_inline(inline, inline.kind(SHORT), SHORT, None, lambda native: native.execute(SHORT), adapter, 1)


def test_a_read_needs_no_lease_that_could_be_refused_or_forgotten() -> None:
    reading = Reading("label", 1)
    reading.forgotten()
    assert reading.refusal() is None  # type: ignore[func-returns-value]
