"""Two thousand tasks on five connections, half of them cancelled at random moments: nothing is lost or left behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.events import ConnectionAcquired, ConnectionClosed, ConnectionCreated, ConnectionReleased, PoolClosed
from aiosqlitepool.testing import Recorder

from .support.storm import Storm, assert_whole, factory, lendable, make_database, nothing_left_behind

SEEDS = range(1, 1 + int(os.environ.get("AIOSQLITEPOOL_STORM_SEEDS", "5")))
SIZE = 5

# The ways of the pool that a storm should also blow through: checks, replacements, refills.
CLIMATES: list[dict[str, Any]] = [
    {},
    {"health_check_after": 0.0},
    {"max_lifetime": 0.1, "min_size": 2},
    {"idle_timeout": 0.001, "health_check_after": 0.0, "max_lifetime": 0.05},
]


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost_in_a_storm_of_cancellations(seed: int, tmp_path: Path) -> None:
    path, storm, events = make_database(tmp_path / "storm.db"), Storm(seed), Recorder()
    climate = CLIMATES[seed % len(CLIMATES)]
    told = f"seed {seed}, {climate}"
    with nothing_left_behind():
        pool = SQLiteConnectionPool(
            factory(path), SIZE, acquisition_timeout=None, name="storm", subscribers=[events], **climate
        )
        await storm.run(pool)

        assert await lendable(pool, SIZE) == SIZE, f"{told}: {pool!r}"
        await assert_whole(pool)
        await pool.close()

        assert storm.findings(path) == [], told
        assert len(storm.acknowledged) > 100, f"{told}: hardly anything was committed: {storm.outcomes}"
        assert storm.outcomes["CancelledError"] > 400, f"{told}: hardly anything was cancelled: {storm.outcomes}"
        assert set(storm.outcomes) <= {"finished", "CancelledError", "RuntimeError"}, f"{told}: {storm.outcomes}"
        assert len(events.of(ConnectionAcquired)) == len(events.of(ConnectionReleased)), told
        created = [event.connection for event in events.of(ConnectionCreated)]
        closed = [event.connection for event in events.of(ConnectionClosed)]
        assert sorted(closed) == sorted(created), told
        assert [event.abandoned for event in events.of(PoolClosed)] == [0], told
