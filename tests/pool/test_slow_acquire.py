"""`AcquireSlow` and the pool's `slow_acquire`."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from aiosqlitepool.events import AcquireSlow, ConnectionAcquired, PoolEvent, PoolTimings
from aiosqlitepool.pool.lease import Lease
from aiosqlitepool.stats import Holder
from aiosqlitepool.testing import Recorder

from ..support.clock import Clock
from ..support.pools import StubPool, pool_of
from ..support.stub import StubDriver, settle


async def waits_of(pool: StubPool, clock: Clock, *seconds: float) -> None:
    """Callers of a pool of one that wait so long, each after one that does not wait in the queue."""
    async with pool:
        for each in seconds:
            async with pool.connection():
                waiting = asyncio.create_task(pool.acquire())
                await settle()
                clock.advance(each)
            await pool.release(await waiting)


async def test_a_slow_acquire_is_emitted_directly_before_its_acquire_with_the_same_fields(
    driver: StubDriver, clock: Clock, recorder: Recorder
) -> None:
    await waits_of(pool_of(driver, 1, clock=clock, slow_acquire=0.5, subscribers=[recorder]), clock, 0.25, 0.5)
    (slow,) = recorder.of(AcquireSlow)
    acquired = recorder[recorder.index(slow) + 1]
    assert isinstance(acquired, ConnectionAcquired)
    fields = dataclasses.asdict(acquired)
    assert {name: getattr(slow, name) for name in fields} == fields
    assert (slow.path, slow.wait_time) == ("queued", 0.5)
    assert [holder.held for holder in slow.holders] == [0.5]


@pytest.mark.parametrize(
    ("slow_acquire", "slow"), [(None, []), (0, ["new", "queued", "queued"]), (0.25, ["queued", "queued"])]
)
async def test_the_pool_decides_what_is_slow(
    driver: StubDriver, clock: Clock, slow_acquire: float | None, slow: list[str]
) -> None:
    events, batches = list[AcquireSlow](), list[PoolTimings]()
    pool = pool_of(driver, 1, clock=clock, slow_acquire=slow_acquire)
    pool.events.subscribe(AcquireSlow, events.append)
    pool.events.subscribe(PoolTimings, batches.append)
    await waits_of(pool, clock, 0.25, 0.5)
    (timings,) = batches
    assert [event.path for event in events] == [each.path for each in timings.slow] == slow
    assert timings.immediate + len(timings.slow) + sum(map(len, timings.waits.values())) == 4


async def test_holders_are_looked_up_for_slow_acquires_only(
    driver: StubDriver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, holder = list[int](), Lease.holder

    def counted(lease: Lease[object], now: float, **more: float) -> Holder:
        made.append(1)
        return holder(lease, now, **more)  # type: ignore[arg-type]

    pool = pool_of(driver, 1, clock=clock, slow_acquire=0.5)
    pool.events.subscribe(AcquireSlow, lambda event: None)
    monkeypatch.setattr(Lease, "holder", counted)
    await waits_of(pool, clock, 0.25, 0.5, 0.25)
    assert len(made) == 1


@pytest.mark.parametrize(("event_type", "kept"), [(AcquireSlow, True), (ConnectionAcquired, False)])
async def test_the_context_of_a_holder_is_kept_only_for_slow_acquires(
    driver: StubDriver, event_type: type[PoolEvent], kept: bool
) -> None:
    async with pool_of(driver, 1, min_size=1) as pool:
        pool.events.subscribe(event_type, lambda event: None)
        async with pool.connection():
            (holder,) = pool.holders()
            assert (holder.context is not None) is kept
