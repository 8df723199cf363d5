"""Another process writes to the same database all along, and is killed in the middle of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import aiosqlite
import pytest

from aiosqlitepool import SQLiteConnectionPool

from .support.processes import (
    ACCOUNTS,
    OPENING_BALANCE,
    SCHEMA,
    Account,
    OtherProcess,
    audit,
    connect,
    transfer,
)
from .support.storm import assert_whole, make_database, nothing_left_behind, quiet

KILLS = 5
Pool = SQLiteConnectionPool[aiosqlite.Connection]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_database(tmp_path / "bank.db", SCHEMA)


@contextlib.asynccontextmanager
async def doing(*work: object) -> AsyncIterator[None]:
    """Run the coroutines beside the block and stop them after it; what one of them raises fails the test."""
    tasks = [asyncio.create_task(coroutine) for coroutine in work]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [error for error in outcomes if not isinstance(error, asyncio.CancelledError)] == []


async def read_for_ever(pool: Pool) -> None:
    """Every snapshot must be balanced, whoever writes and whoever dies."""
    while True:
        async with pool.connection() as connection:
            rows = await connection.execute_fetchall(
                "SELECT (SELECT sum(balance) FROM accounts), (SELECT ifnull(sum(amount), 0) FROM ledger), "
                "(SELECT count(*) FROM (SELECT 1 FROM ledger GROUP BY transfer HAVING count(*) <> 2))"
            )
        assert list(rows) == [(ACCOUNTS * OPENING_BALANCE, 0, 0)]  # total, ledger, half transfers


async def write_for_ever(pool: Pool, account: Account, name: str) -> None:
    """Transfers of our own; when the other process keeps the write lock too long, that one is not acknowledged."""
    choose = random.Random(name)
    for number in range(1_000_000_000):
        with contextlib.suppress(aiosqlite.OperationalError):
            async with pool.connection() as connection:
                await transfer(connection, f"{name}-{number}", choose, account.tell)


async def cancel_for_ever(pool: Pool, account: Account, name: str) -> None:
    """Transfers of our own that are cancelled in the middle, many of them while they wait for the other process."""
    choose = random.Random(name)
    for number in range(1_000_000_000):

        async def one(number: int = number) -> None:
            async with pool.connection() as connection:
                await transfer(connection, f"{name}-{number}", choose, account.tell)

        task = asyncio.create_task(one())
        await asyncio.wait({task}, timeout=choose.uniform(0, 0.02))
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert outcome is None or isinstance(outcome, asyncio.CancelledError | aiosqlite.OperationalError)


async def test_every_snapshot_is_balanced_while_another_process_writes(path: Path) -> None:
    theirs, ours = Account(), Account()
    with nothing_left_behind():
        async with SQLiteConnectionPool(lambda: connect(path), 5, name="bank") as pool:
            work = read_for_ever(pool), read_for_ever(pool), write_for_ever(pool, ours, "ours")
            async with OtherProcess.writing(path, "theirs", theirs) as other, doing(*work):
                await other.listen("done", times=150)
            await quiet(pool)
            await assert_whole(pool)
    assert audit(path, [theirs, ours]) == []


async def test_cancelled_tasks_lose_nothing_while_another_process_writes(path: Path) -> None:
    theirs, ours = Account(), Account()
    with nothing_left_behind():
        async with SQLiteConnectionPool(lambda: connect(path), 5, name="bank") as pool:
            cancelled = [cancel_for_ever(pool, ours, f"cancelled-{number}") for number in range(6)]
            work = read_for_ever(pool), write_for_ever(pool, ours, "ours"), *cancelled
            async with OtherProcess.writing(path, "theirs", theirs) as other, doing(*work):
                await other.listen("done", times=150)
            await quiet(pool)
            await assert_whole(pool)
    assert audit(path, [theirs, ours]) == []


async def test_a_process_killed_while_it_writes_loses_nothing_it_acknowledged(path: Path) -> None:
    choose, ours, accounts = random.Random(7), Account(), []
    with nothing_left_behind():
        async with SQLiteConnectionPool(lambda: connect(path), 5, name="bank") as pool:
            async with doing(read_for_ever(pool), write_for_ever(pool, ours, "ours")):
                for kill in range(KILLS):
                    accounts.append(theirs := Account())
                    async with OtherProcess.writing(path, f"theirs-{kill}", theirs) as other:
                        await other.listen("done", times=choose.randint(5, 40))
                        await other.listen(choose.choice(["begin", "commit"]))
                        await other.kill()
            await assert_whole(pool)
    assert all(len(account.done) >= 5 for account in accounts)
    assert audit(path, [*accounts, ours]) == []


async def test_a_process_killed_inside_a_transaction_leaves_nothing_of_it(path: Path) -> None:
    ours, accounts = Account(), []
    with nothing_left_behind():
        async with SQLiteConnectionPool(lambda: connect(path), 5, name="bank") as pool:
            for kill in range(KILLS):
                accounts.append(theirs := Account())
                work = read_for_ever(pool), write_for_ever(pool, ours, f"ours-{kill}")
                other_process = OtherProcess.writing(path, f"theirs-{kill}", theirs, stuck_after=10)
                async with other_process as other, doing(*work):
                    await other.listen("stuck")
                    await other.kill()
                # The lock died with it: the very connections that saw it happen write on.
                async with pool.connection() as connection:
                    await transfer(connection, f"after-{kill}", random.Random(kill), ours.tell)
                assert f"after-{kill}" in ours.done
                assert audit(path, [*accounts, ours]) == []
            await assert_whole(pool)
    assert all(len(account.stuck) == 1 for account in accounts)
