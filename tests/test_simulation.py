"""The whole pool, simulated: a million turns of the loop in which everything goes wrong, none of them slept.

A step is one turn of the event loop; the invariants are checked after each. `AIOSQLITEPOOL_SIM_STEPS` sets how
many, `AIOSQLITEPOOL_SIM_SEED` with which seed to begin.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from aiosqlitepool import PoolError, SQLiteConnectionPool

from .support.measuring import unmeasured
from .support.simulation import Injected, World, simulate
from .support.stub import StubConnection, StubDriver, hangs, settle
from .support.virtual import run

SEED = int(os.environ.get("AIOSQLITEPOOL_SIM_SEED", "1"))
STEPS = int(os.environ.get("AIOSQLITEPOOL_SIM_STEPS", "1000000"))

# Ten times what it takes. A deadline that passed would raise inside of whatever task runs just then, which looks as if
# the pool had lost something: it must not pass because the machine is busy.
DEADLINE = 120 + STEPS / 2000


@pytest.mark.timeout(DEADLINE)
def test_nothing_is_lost_whatever_goes_wrong() -> None:
    print(f"AIOSQLITEPOOL_SIM_SEED={SEED} AIOSQLITEPOOL_SIM_STEPS={STEPS}")
    # Measured, a turn takes three times as long, and the first tens of thousands reach every branch that the rest does.
    steps, worlds = simulate(SEED, STEPS // 20)
    with unmeasured():
        more_steps, more_worlds = simulate(SEED + worlds, STEPS - steps)
    steps, worlds = steps + more_steps, worlds + more_worlds
    print(f"{steps} steps in {worlds} worlds, seeds {SEED} to {SEED + worlds - 1}")
    assert steps >= STEPS


def test_the_same_seed_makes_the_same_history() -> None:
    histories = []
    for _ in range(2):
        world = World(SEED)
        try:
            world.play()
        finally:
            histories.append((list(world.history), world.loop.turns, world.loop.now, world.events))
    assert histories[0] == histories[1]


@pytest.mark.parametrize("delay", [0.25, 0.5, 0.75, 1.0, 1.25, 1.5])
def test_a_connection_that_begins_to_close_as_the_pool_gives_up_is_closed_all_the_same(delay: float) -> None:
    async def main(turns: int) -> None:
        loop = asyncio.get_running_loop()

        async def dies_late(connection: StubConnection) -> None:
            await asyncio.sleep(delay)
            for _ in range(turns):
                await asyncio.sleep(0)
            raise Injected("found dead, at last")

        driver = StubDriver(on_execute=dies_late)
        pool = SQLiteConnectionPool(driver, 1, operation_timeout=4, health_check_after=0, clock=loop.time)
        async with pool.connection() as connection:
            pass
        acquiring = asyncio.ensure_future(pool.acquire())
        await settle()
        driver.on_connect = hangs
        await pool.close(0.25)  # which gives up a few times 0.25 s later: at one of these turns
        with pytest.raises(PoolError):
            await acquiring
        await asyncio.sleep(60)
        assert connection.closed == 1, f"after {turns} turns"
        assert not pool._inventory.connector.connections

    for turns in range(8):
        run(main(turns))


def test_a_pool_that_must_keep_connections_which_may_not_stand_idle_does_not_spin() -> None:
    async def main() -> None:
        driver = StubDriver()

        async def connect() -> None:
            if driver.attempts > 200:
                await hangs()  # so that the test ends also if the pool never would

        driver.on_connect = connect
        clock = asyncio.get_running_loop().time
        try:
            pool = SQLiteConnectionPool(driver, 1, min_size=1, idle_timeout=0, operation_timeout=1, clock=clock)
        except ValueError:
            return  # to refuse the contradiction is as good
        async with pool:
            await asyncio.sleep(60)
        assert driver.attempts < 200, "a connection was opened and closed over and over"

    run(main())
