"""A storm over `SQLiteDatabase`, in one process or in several at once: money moves, half of the movers are cancelled.

What a transfer meant to do it writes down itself, in an `Account`; what became of its transaction, the database's own
events say. Both must agree with the books. Run as a program it is the other process, which says what it did as JSON:

    python -m tests.support.bank_storm DATABASE NAME SEED TASKS
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import random
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiosqlitepool import SQLiteDatabase
from aiosqlitepool.events import BusyRetried, TransactionEnded

from .processes import ACCOUNTS, OPENING_BALANCE, ROOT, Account
from .storm import assert_whole, quiet

BOOKS = (
    "SELECT (SELECT sum(balance) FROM accounts), (SELECT ifnull(sum(amount), 0) FROM ledger), "
    "(SELECT count(*) FROM (SELECT 1 FROM ledger GROUP BY transfer HAVING count(*) <> 2))"
)
BALANCED = (ACCOUNTS * OPENING_BALANCE, 0, 0)


@dataclasses.dataclass
class Report:
    """What one process did: what it meant to commit and what was committed, by its own account and by its events."""

    account: Account = dataclasses.field(default_factory=Account)
    committed: int = 0
    retried: int = 0
    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)
    complaints: list[str] = dataclasses.field(default_factory=list)

    def dump(self) -> str:
        account = {name: sorted(names) for name, names in dataclasses.asdict(self.account).items()}
        return json.dumps({**vars(self), "account": account, "outcomes": dict(self.outcomes)})

    @classmethod
    def load(cls, text: str) -> Report:
        told = json.loads(text)
        account = Account(**{name: set(names) for name, names in told.pop("account").items()})
        return cls(account=account, outcomes=Counter(told.pop("outcomes")), **told)


class BankStorm:
    """What a seed makes of `tasks` tasks."""

    def __init__(self, seed: int, name: str, tasks: int) -> None:
        self.random = random.Random(f"{seed} {name}")
        self.name = name
        self.size = tasks
        self.report = Report()
        self._timers: list[asyncio.TimerHandle] = []

    async def run(self, db: SQLiteDatabase) -> Report:
        """Start everything at once, wait for the end of it, and look whether anything is left."""
        db.writer.events.subscribe(TransactionEnded, self._note)
        db.writer.events.subscribe(BusyRetried, self._note_retry)
        tasks = []
        for number in range(self.size):
            kinds = [self.block, self.function, self.nested, self.changes_its_mind, self.reads, self.reads_by_function]
            (kind,) = self.random.choices(kinds, [25, 35, 10, 10, 10, 10])
            tasks.append(asyncio.create_task(kind(db, f"{self.name}-{number}"), name=kind.__name__))
            if self.random.random() < 0.5:
                self._cancel_some_time(tasks[-1])
        for task, result in zip(tasks, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
            self.report.outcomes["finished" if result is None else type(result).__name__] += 1
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError | KeyError):
                self.report.complaints.append(f"{task.get_name()}: {result!r}")
        for timer in self._timers:
            timer.cancel()
        for pool in (db.writer, db.readers):
            await quiet(pool)
            await assert_whole(pool)
        return self.report

    def _note(self, event: TransactionEnded) -> None:
        self.report.committed += event.outcome == "committed"

    def _note_retry(self, event: BusyRetried) -> None:
        self.report.retried += 1

    def _cancel_some_time(self, task: asyncio.Task[Any]) -> None:
        """Once or twice, after some turns of the loop or after some time."""
        loop = asyncio.get_running_loop()

        def countdown(turns: int) -> None:
            if turns:
                loop.call_soon(countdown, turns - 1)
            else:
                task.cancel()

        for _ in range(self.random.choice([1, 1, 2])):
            if self.random.random() < 0.3:
                countdown(self.random.randrange(200))
            else:
                self._timers.append(loop.call_later(self.random.uniform(0, 0.5), task.cancel))

    # -- what a task does

    def _move(self, native: sqlite3.Connection, which: str, amount: int, payer: int, payee: int) -> None:
        tell = self.report.account.tell
        native.execute("UPDATE accounts SET balance = balance - ? WHERE id = ?", (amount, payer))
        native.execute("INSERT INTO ledger VALUES (?, 1, ?)", (which, -amount))
        tell("begin", which)
        native.execute("UPDATE accounts SET balance = balance + ? WHERE id = ?", (amount, payee))
        native.execute("INSERT INTO ledger VALUES (?, 2, ?)", (which, amount))
        tell("commit", which)

    def _chosen(self) -> tuple[int, int, int]:
        payer, payee = self.random.sample(range(1, ACCOUNTS + 1), 2)
        return self.random.randint(1, 50), payer, payee

    async def function(self, db: SQLiteDatabase, which: str) -> None:
        await db.run_write(self._move, which, *self._chosen(), retry=self.random.random() < 0.5)
        self.report.account.tell("done", which)

    async def block(self, db: SQLiteDatabase, which: str) -> None:
        amount, payer, payee = self._chosen()
        async with db.write() as connection:
            await connection.execute("UPDATE accounts SET balance = balance - ? WHERE id = ?", (amount, payer))
            await connection.execute("INSERT INTO ledger VALUES (?, 1, ?)", (which, -amount))
            self.report.account.tell("begin", which)
            await connection.execute("UPDATE accounts SET balance = balance + ? WHERE id = ?", (amount, payee))
            await connection.execute("INSERT INTO ledger VALUES (?, 2, ?)", (which, amount))
            self.report.account.tell("commit", which)
        self.report.account.tell("done", which)

    async def nested(self, db: SQLiteDatabase, which: str) -> None:
        """A transfer as a function inside a block; a block beside it thinks better of it or takes too long."""
        async with db.write() as connection:
            with contextlib.suppress(KeyError, TimeoutError):
                async with asyncio.timeout(self.random.uniform(0, 0.002)), db.write():
                    await connection.execute("INSERT INTO ledger VALUES (?, 1, 1)", (f"{which}-never",))
                    if self.random.random() < 0.5:
                        raise KeyError
                    await asyncio.Event().wait()
            await db.run_write(self._move, which, *self._chosen())
        self.report.account.tell("done", which)

    async def changes_its_mind(self, db: SQLiteDatabase, which: str) -> None:
        if self.random.random() < 0.5:
            async with db.write() as connection:
                await connection.execute("INSERT INTO ledger VALUES (?, 1, 1)", (f"{which}-never",))
                raise KeyError

        def fails(native: sqlite3.Connection) -> None:
            native.execute("INSERT INTO ledger VALUES (?, 1, 1)", (f"{which}-never",))
            raise KeyError

        await db.run_write(fails)

    async def reads(self, db: SQLiteDatabase, which: str) -> None:
        async with db.read(snapshot=True) as connection:
            for _ in range(3):
                (books,) = await connection.execute_fetchall(BOOKS)
                assert tuple(books) == BALANCED, books

    async def reads_by_function(self, db: SQLiteDatabase, which: str) -> None:
        books = await db.run_read(lambda native: native.execute(BOOKS).fetchone())
        assert books == BALANCED, books


async def storm(path: str | Path, name: str, seed: int, tasks: int) -> Report:
    """Send a storm through a database of this process."""
    async with SQLiteDatabase(path, readers=3, acquisition_timeout=None, checkpoint_above=0) as db:
        return await BankStorm(seed, name, tasks).run(db)


@contextlib.asynccontextmanager
async def storm_elsewhere(path: Path, name: str, seed: int, tasks: int) -> AsyncIterator[list[Report]]:
    """The same in another process, begun before the block; the yielded list has its report after it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.bank_storm", str(path), name, str(seed), str(tasks)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    reports: list[Report] = []
    try:
        assert await process.stdout.readline() == b"ready\n"
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        yield reports
        reports.append(Report.load((await process.stdout.read()).decode()))
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def committed_by(path: Path, name: str) -> int:
    """How many transfers of one process are in the books."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        count = "SELECT count(DISTINCT transfer) FROM ledger WHERE transfer LIKE ? || '-%'"
        return int(connection.execute(count, (name,)).fetchone()[0])


def is_free(path: Path) -> bool:
    """Whether nobody holds a lock or has a transaction open."""
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        return connection.in_transaction


if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    print(asyncio.run(storm(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))).dump())
