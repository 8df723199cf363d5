from __future__ import annotations

import asyncio
import gc
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolConnectionAcquireTimeoutError, PoolFullError, SQLiteConnectionPool
from aiosqlitepool.debug.monitor import Monitor
from aiosqlitepool.events import ConnectionAcquired

from ..support.pools import StubPool, in_turn, pool_of, queued
from ..support.stub import StubDriver, fails, settle
from ..support.timeless import about, timeless
from ..support.worker import Gate


def look(monitor: Monitor) -> dict[str, Any]:
    shown = monitor.snapshot()
    assert shown is not None
    return shown


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


@timeless
async def test_it_shows_the_levels_and_who_holds_and_waits(driver: StubDriver) -> None:
    async with pool_of(driver, 2, min_size=1) as pool:
        monitor = Monitor(pool, stacks=False)
        first, second = await in_turn(pool, 2)
        await asyncio.sleep(3)
        third = await queued(pool, "GET /posts")
        await asyncio.sleep(1)
        shown = look(monitor)
        expected = {"pool": "app.db", "state": "open", "max_size": 2, "min_size": 1, "used": 2, "idle": 0, "waiting": 1}
        assert {key: shown[key] for key in expected} == expected
        assert (shown["size"], shown["oldest_waiter"], shown["oldest_checkout"]) == (2, about(1), about(4))
        held = {"connection": 1, "task": "waiter 1", "label": "waiter 1", "held": about(4), "ended": True}
        assert shown["holders"][0] == {**held, "suspected": False}
        assert shown["waiters"] == [{"task": "GET /posts", "label": "GET /posts", "waited": about(1)}]
        for task in (first, second, third):
            await pool.release(await task)


@timeless
async def test_a_holder_is_a_suspected_leak_from_the_threshold_of_its_pool_on(driver: StubDriver) -> None:
    async with pool_of(driver, 2, leak_threshold=60) as pool:
        monitor = Monitor(pool, stacks=False)
        forgotten = await pool.acquire("forgotten")
        await asyncio.sleep(59)
        async with pool.connection("late"):
            assert [holder["suspected"] for holder in look(monitor)["holders"]] == [False, False]
            await asyncio.sleep(2)
            assert [holder["suspected"] for holder in look(monitor)["holders"]] == [True, False]
        await pool.release(forgotten)


@timeless
async def test_without_a_threshold_no_holder_is_a_suspected_leak(driver: StubDriver) -> None:
    async with pool_of(driver, 1, leak_threshold=None) as pool, pool.connection():
        await asyncio.sleep(1000)
        (holder,) = look(Monitor(pool, stacks=False))["holders"]
        assert holder["suspected"] is False


@timeless
async def test_the_levels_of_the_last_minute_are_there_before_anyone_looked(driver: StubDriver) -> None:
    loop = asyncio.get_running_loop()
    async with pool_of(driver, 1) as pool:
        monitor = Monitor(pool, stacks=False, clock=loop.time)
        async with pool.connection():
            second = await queued(pool, "second")
            await asyncio.sleep(10)
        held = await second
        await asyncio.sleep(10)
        recent = look(monitor)["recent"]
        assert recent["used"][-19:] == about([1.0] * 19)
        # Seconds that are not whole lie between.
        assert recent["waiting"][-18:-11] + recent["waiting"][-9:] == about([1.0] * 7 + [0.0] * 9)
        await pool.release(held)


@timeless
async def test_a_holder_is_shown_with_its_coroutine_and_what_it_waits_for(driver: StubDriver) -> None:
    async def save() -> None:
        async with one.connection(), other.connection():
            pass

    async with pool_of(driver, 1) as one, pool_of(driver, 1, name="other") as other:
        held = await other.acquire()
        saving = asyncio.create_task(save(), name="Task-0")
        await asyncio.sleep(2)
        (shown,) = look(Monitor(one, stacks=False))["holders"]
        assert shown["coroutine"].endswith("save")
        assert (shown["label"], shown["waits_for"], shown["waited"]) == (None, "other", about(2))
        await other.release(held)
        await saving


async def test_a_holder_is_shown_with_the_statement_that_it_runs_or_ran(database: Path) -> None:
    with Gate() as gate:
        async with (
            SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1) as pool,
            pool.connection() as connection,
        ):
            monitor = Monitor(pool, stacks=False)
            await gate.install(connection)
            running = asyncio.create_task(connection.execute_fetchall("SELECT gate() WHERE 'secret' = 'secret'"))
            await gate.reached.wait()
            (shown,) = look(monitor)["holders"]
            assert (shown["statement"], shown["statement_runs"]) == ("SELECT gate() WHERE ? = ?", True)
            gate.open()
            await running
            (shown,) = look(monitor)["holders"]
            assert (shown["statement"], shown["statement_runs"]) == ("SELECT gate() WHERE ? = ?", False)
            assert shown["statement_time"] > 0


async def test_a_statement_is_shown_with_all_that_the_pool_knows_of_it(database: Path) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, name="app.db") as pool:
        monitor = Monitor(pool, stacks=False)
        async with pool.connection("GET /") as connection:
            await connection.execute("SELECT 1")
        (row,) = pool.statements()
        for wanted in (True, ["app.db"]):
            shown = monitor.snapshot(statements=wanted)
            assert shown is not None
            assert shown["statements"] == [asdict(row)]
            assert shown["statements_forgotten"] == 0
        for unwanted in (False, [], ["other"]):
            assert "statements" not in (monitor.snapshot(statements=unwanted) or {"statements": "the pool is gone"})


@timeless
async def test_acquires_are_counted_by_their_path(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        monitor = Monitor(pool, stacks=False)
        for _ in range(3):
            async with pool.connection():
                waiter = await queued(pool)
            await pool.release(await waiter)
        assert look(monitor)["acquires"] == {"new": 1, "idle": 2, "queued": 3}
        assert look(monitor)["counts"]["release"] == 6


async def test_an_acquire_that_went_at_once_and_a_clean_return_are_counted_and_not_listed(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        async with pool.connection():
            pass
        monitor = Monitor(pool, stacks=False)
        async with pool.connection():
            pass
        shown = look(monitor)
    assert (shown["counts"]["acquire_wait"], shown["counts"]["release"]) == (1, 1)
    assert not {"acquire_wait", "release"} & set(names(shown["events"]))


@timeless
async def test_a_holder_whose_task_has_ended_is_shown_as_such(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        monitor = Monitor(pool, stacks=False)
        held = await asyncio.create_task(pool.acquire())
        assert look(monitor)["holders"][0]["ended"] is True
        await pool.release(held)


@timeless
async def test_percentiles_are_of_waits_and_holds_and_count_those_who_failed(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=2) as pool:
        monitor = Monitor(pool, stacks=False)
        held = await pool.acquire()
        with pytest.raises(PoolConnectionAcquireTimeoutError):
            await pool.acquire()
        await pool.release(held)
        shown = look(monitor)
    assert (shown["wait_times"]["count"], shown["wait_times"]["max"]) == (2, about(2))
    assert (shown["use_times"]["count"], shown["use_times"]["p50"]) == (1, about(2))


@timeless
async def test_failures_are_told_newest_first_with_what_was_for_whom(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=2, max_waiting=1) as pool:
        monitor = Monitor(pool, stacks=False)
        driver.on_connect = fails(OSError("disk on fire"))
        with pytest.raises(OSError, match="fire"):
            await pool.acquire(label="first")
        driver.on_connect = None
        async with pool.connection(label="holder"):
            waiter = await queued(pool, "second")
            with pytest.raises(PoolFullError):
                await pool.acquire(label="third")
            await asyncio.sleep(3)
            assert isinstance(waiter.exception(), PoolConnectionAcquireTimeoutError)
        failures = look(monitor)["failures"]
    assert [(each["event"], each["label"]) for each in failures] == [
        ("acquire_timeout", "second"),
        ("acquire_reject", "third"),
        ("acquire_fail", "first"),
        ("create_fail", None),
    ]
    assert failures[-1]["text"].endswith("OSError: disk on fire")
    assert failures[0]["text"] == "gave up after 2.00 s; held by holder (2.00 s)"


async def test_what_happens_often_pushes_out_nothing_that_happens_seldom(driver: StubDriver) -> None:
    async with pool_of(driver, 1, min_size=1) as pool:
        monitor = Monitor(pool, stacks=False)
        driver.on_connect = fails(OSError("disk on fire"))
        await pool.open()
        pool.events.emit(ConnectionAcquired("app.db", 1, "new", 0.1))
        for _ in range(1000):
            pool.events.emit(ConnectionAcquired("app.db", 1, "queued", 0.1))
    shown = look(monitor)
    assert {"acquire_wait", "close", "pool_close"} <= set(names(shown["events"]))
    assert len(shown["events"]) < 100
    assert shown["counts"]["acquire_wait"] == 1001
    numbers = [event["number"] for event in shown["events"]]
    assert numbers == sorted(numbers, reverse=True)


@timeless
async def test_a_slow_acquire_is_listed_once_with_its_holders(driver: StubDriver) -> None:
    async with pool_of(driver, 1, slow_acquire=1) as pool:
        monitor = Monitor(pool, stacks=False)
        for seconds in (0.5, 2):
            async with pool.connection(label="holder"):
                waiter = await queued(pool)
                await asyncio.sleep(seconds)
            await pool.release(await waiter)
        shown = look(monitor)
    texts = [event["text"] for event in shown["events"] if event["event"].startswith("acquire")]
    assert texts[:2] == [
        "connection 1 after 2.00 s in the queue; held by holder (2.00 s)",
        "connection 1 after 500 ms in the queue",
    ]
    assert (shown["counts"]["acquire_wait"], shown["counts"]["acquire_slow"]) == (4, 1)
    assert shown["acquires"] == {"new": 1, "idle": 1, "queued": 2}


async def test_a_long_queue_is_shown_from_its_head(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        monitor = Monitor(pool, stacks=False)
        async with pool.connection():
            tasks = [asyncio.create_task(pool.acquire(label=str(number))) for number in range(500)]
            await settle()
            shown = look(monitor)
            for task in tasks:
                task.cancel()
            await settle()
    assert (shown["waiting"], len(shown["waiters"]), shown["waiters"][0]["label"]) == (500, 200, "0")


async def test_detached_it_remembers_nothing_more_and_costs_nothing(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        monitor = Monitor(pool, stacks=False)
        monitor.detach()
        assert pool.events.handlers == {}
        async with pool.connection():
            pass
        assert sum(look(monitor)["counts"].values()) == 0


def test_it_does_not_keep_a_pool_alive(driver: StubDriver) -> None:
    pool: StubPool = SQLiteConnectionPool(driver)
    monitor = Monitor(pool, stacks=False)
    del pool
    gc.collect()
    assert monitor.snapshot() is None


# -- stacks


async def _work(pool: StubPool, event: asyncio.Event) -> None:
    async with pool.connection(label="work"):
        await event.wait()


async def test_with_stacks_it_shows_where_each_holder_stands(driver: StubDriver) -> None:
    async with pool_of(driver, 2) as pool:
        monitor, event = Monitor(pool, stacks=True), asyncio.Event()
        # Both of one name: the task is known by itself.
        tasks = [asyncio.create_task(_work(pool, event), name="worker") for _ in range(2)]
        await settle()
        for holder in look(monitor)["holders"]:
            assert [line["function"] for line in holder["stack"]] == ["_work", "Event.wait"]
            assert holder["stack"][0]["code"] == "await event.wait()"
        event.set()
        await asyncio.gather(*tasks)
        assert not monitor._tasks


async def test_without_stacks_there_is_no_word_of_them(driver: StubDriver) -> None:
    async with pool_of(driver, 2) as pool:
        monitor = Monitor(pool, stacks=False)
        async with pool.connection():
            assert "stack" not in look(monitor)["holders"][0]


async def test_a_holder_from_before_it_looked_or_whose_task_is_over_has_no_stack(driver: StubDriver) -> None:
    async with pool_of(driver, 2) as pool, pool.connection():
        monitor = Monitor(pool, stacks=True)
        connection = await asyncio.create_task(pool.acquire())
        gc.collect()
        assert [holder["stack"] for holder in look(monitor)["holders"]] == [[], []]
        await pool.release(connection)
