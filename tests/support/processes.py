"""Another process that writes to the database through a pool of its own, until it is killed.

It moves money between accounts. Each transfer is two balances changed and two rows in the ledger, so that half a
transfer shows. It says what it does on its standard output, one short line at a time, each a single write to the pipe:

    begin ID        inside the transaction, after its first half
    commit ID       just before it calls `commit()`
    done ID         after `commit()` returned: from now on this transfer must never be lost
    stuck ID        it stays inside this transaction for ever, its changes spilled to the file

    python -m tests.support.processes DATABASE NAME STUCK_AFTER
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiosqlite

from aiosqlitepool import SQLiteConnectionPool

ROOT = Path(__file__).parents[2]
ACCOUNTS, OPENING_BALANCE = 10, 1000

SCHEMA = f"""
CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
CREATE TABLE ledger (
    transfer TEXT NOT NULL, side INTEGER NOT NULL, amount INTEGER NOT NULL, PRIMARY KEY (transfer, side)
);
CREATE TABLE ballast (filling BLOB);
INSERT INTO accounts
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ACCOUNTS})
    SELECT i, {OPENING_BALANCE} FROM n;
"""

# Far more pages than the cache of a connection here may hold: uncommitted changes get written to the file.
SPILL = (
    "INSERT INTO ballast SELECT randomblob(3000) FROM "
    "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) SELECT i FROM n)"
)


async def connect(path: str | Path) -> aiosqlite.Connection:
    connection = await aiosqlite.connect(path, isolation_level=None)
    await connection.execute("PRAGMA busy_timeout=60000")
    await connection.execute("PRAGMA cache_size=20")
    return connection


async def transfer(connection: Any, name: str, choose: random.Random, tell: Any = lambda *_: None) -> None:
    """Move some money in one transaction; `tell(moment, name)` as it goes."""
    amount = choose.randint(1, 50)
    payer, payee = choose.sample(range(1, ACCOUNTS + 1), 2)
    await connection.execute("BEGIN IMMEDIATE")
    await connection.execute("UPDATE accounts SET balance = balance - ? WHERE id = ?", (amount, payer))
    await connection.execute("INSERT INTO ledger VALUES (?, 1, ?)", (name, -amount))
    tell("begin", name)
    await connection.execute("UPDATE accounts SET balance = balance + ? WHERE id = ?", (amount, payee))
    await connection.execute("INSERT INTO ledger VALUES (?, 2, ?)", (name, amount))
    tell("commit", name)
    await connection.commit()
    tell("done", name)


async def write_until_killed(path: str, name: str, stuck_after: int) -> None:
    def tell(moment: str, which: str) -> None:
        os.write(1, f"{moment} {which}\n".encode())

    choose = random.Random(name)
    pool = SQLiteConnectionPool(lambda: connect(path), 3, name=name)
    numbers = iter(range(1_000_000_000))

    async def one(which: str, *, abandon: bool, stuck: bool) -> None:
        async with pool.connection() as connection:
            if stuck:
                await connection.execute("BEGIN IMMEDIATE")
                await connection.execute("INSERT INTO ledger VALUES (?, 1, 1)", (which,))
                await connection.execute(SPILL)
                tell("stuck", which)
                await asyncio.Event().wait()
            await transfer(connection, which, choose, tell)
            if abandon:  # some are begun and thought better of
                await connection.execute("BEGIN IMMEDIATE")
                await connection.execute("INSERT INTO ledger VALUES (?, 1, 1)", (f"{which}-abandoned",))

    async def writer() -> None:
        for number in numbers:
            with contextlib.suppress(aiosqlite.OperationalError):  # another kept the write lock for too long
                await one(f"{name}-{number}", abandon=number % 7 == 3, stuck=number >= stuck_after)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(writer())


@dataclass
class Account:
    """What a process said about its transfers."""

    begun: set[str] = field(default_factory=set)
    committing: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    stuck: set[str] = field(default_factory=set)

    def tell(self, moment: str, name: str) -> None:
        {"begin": self.begun, "commit": self.committing, "done": self.done, "stuck": self.stuck}[moment].add(name)


class OtherProcess:
    """The process, seen from here."""

    def __init__(self, process: asyncio.subprocess.Process, account: Account) -> None:
        self._process = process
        self.account = account

    @classmethod
    @contextlib.asynccontextmanager
    async def writing(cls, path: Path, name: str, account: Account, *, stuck_after: int = 10**9) -> AsyncIterator[Any]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.processes", str(path), name, str(stuck_after)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        other = cls(process, account)
        try:
            yield other
        finally:
            await other.kill()

    async def listen(self, moment: str, *, times: int = 1) -> None:
        """Take down what it says until it has said `moment` so many times."""
        assert self._process.stdout is not None
        while times:
            line = (await self._process.stdout.readline()).decode().split()
            assert line, f"the other process ended by itself: {await self._process.wait()}"
            self.account.tell(*line)
            times -= line[0] == moment

    async def kill(self) -> None:
        """SIGKILL, and take down its last words."""
        if self._process.returncode is None:
            self._process.kill()
        assert self._process.stdout is not None
        for line in (await self._process.stdout.read()).decode().splitlines():
            self.account.tell(*line.split())
        await self._process.wait()


def audit(path: Path, accounts: Iterable[Account]) -> list[str]:
    """What is wrong with the books, in words."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        total, overall = connection.execute(
            "SELECT sum(balance), (SELECT sum(amount) FROM ledger) FROM accounts"
        ).fetchone()
        sides = dict(connection.execute("SELECT transfer, group_concat(side) FROM ledger GROUP BY transfer"))
        ballast = connection.execute("SELECT count(*) FROM ballast").fetchone()[0]
        intact = connection.execute("PRAGMA integrity_check").fetchone()[0]
    done = {name for account in accounts for name in account.done}
    committing = {name for account in accounts for name in account.committing}
    findings = [f"acknowledged and missing: {name}" for name in sorted(done - sides.keys())]
    findings += [f"there, and its commit never began: {name}" for name in sorted(sides.keys() - committing)]
    findings += [f"half a transfer: {name}" for name, found in sides.items() if found not in ("1,2", "2,1")]
    findings += [f"the balances add up to {total}"] if total != ACCOUNTS * OPENING_BALANCE else []
    findings += [f"the ledger adds up to {overall}"] if overall not in (0, None) else []
    findings += [f"{ballast} rows of a transaction that never ended"] if ballast else []
    return findings if intact == "ok" else [*findings, f"the database is damaged: {intact}"]


if __name__ == "__main__":
    asyncio.run(write_until_killed(sys.argv[1], sys.argv[2], int(sys.argv[3])))
