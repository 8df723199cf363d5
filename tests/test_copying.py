"""Values can be copied, pickled and turned into dicts, whatever subscribes; pools and leases say that they cannot."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import asdict, replace
from typing import Any

import pytest

from aiosqlitepool import (
    PoolClosedError,
    PoolConnectionAcquireTimeoutError,
    PoolFullError,
    PoolUsageError,
    SQLiteConnectionPool,
    SQLiteDatabase,
)
from aiosqlitepool.copying import CapturedContext
from aiosqlitepool.events import ConnectionReleased, PoolTimings
from aiosqlitepool.testing import Recorder

from .support.pools import pool_of, queued
from .support.stub import StubDriver


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


WAYS: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, pickled]
request: ContextVar[str] = ContextVar("request")


@pytest.mark.parametrize("way", WAYS)
async def test_a_timeout_travels_with_its_diagnosis(way: Callable[[Any], Any], driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=0, subscribers=[Recorder()]) as pool:
        async with pool.connection(label="GET /users"):
            with pytest.raises(PoolConnectionAcquireTimeoutError) as caught:
                await pool.acquire()
    error, made = caught.value, way(caught.value)
    assert type(made) is type(error)
    assert (str(made), made.waited, made.stats, made.holders) == (str(error), error.waited, error.stats, error.holders)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [PoolClosedError, PoolFullError, PoolUsageError])
def test_other_errors_travel_too(kind: type[Exception], way: Callable[[Any], Any]) -> None:
    error = way(kind("why"))
    assert (type(error), str(error)) == (kind, "why")


@pytest.mark.parametrize("way", [*WAYS, replace])
async def test_holders_waiters_levels_and_events_travel(way: Callable[[Any], Any], driver: StubDriver) -> None:
    recorder, batches = Recorder(), list[PoolTimings]()
    async with pool_of(driver, 1, slow_acquire=0, subscribers=[recorder]) as pool:
        pool.events.subscribe(PoolTimings, batches.append)
        async with pool.connection():
            waiter = await queued(pool)
            values = [*pool.holders(), *pool.waiters(), pool.stats()]
        await pool.release(await waiter)
    values += [*recorder, *batches]
    assert {"pool_open", "acquire_slow", "release", "pool_close"} < set(recorder.names)
    assert batches[0].slow
    for value in values:
        assert way(value) == value
        assert json.loads(json.dumps(asdict(value), default=str))


async def test_a_copy_of_a_holder_that_is_not_deep_has_its_context(driver: StubDriver) -> None:
    request.set("GET /users")
    async with pool_of(driver, subscribers=[Recorder()]) as pool, pool.connection():
        (holder,) = pool.holders()
    assert isinstance(holder.context, CapturedContext)
    assert dict(holder.context)[request] == holder.context.run(request.get) == "GET /users"
    assert len(holder.context) == len(dict(holder.context))
    assert copy.copy(holder).context is holder.context
    assert copy.deepcopy(holder).context is pickled(holder).context is asdict(holder)["context"] is None


async def test_without_a_context_an_event_has_none(driver: StubDriver) -> None:
    released = list[ConnectionReleased]()
    async with pool_of(driver) as pool:
        pool.events.subscribe(ConnectionReleased, released.append)
        async with pool.connection():
            pass
    assert released[0].context is None


@pytest.mark.parametrize("way", WAYS)
async def test_what_has_connections_says_that_it_cannot_travel(way: Callable[[Any], Any]) -> None:
    pool: SQLiteConnectionPool[Any] = pool_of(StubDriver())
    for name, value in (
        ("SQLiteConnectionPool", pool),
        ("SQLiteDatabase", SQLiteDatabase(":memory:")),
        ("Lease", pool.connection()),
    ):
        with pytest.raises(TypeError, match=f"a {name} cannot be copied or pickled: .* make one of its own"):
            way(value)
