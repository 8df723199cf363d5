"""How programs end that do not treat the pool as they should: soon, saying what was left open, and without a mess."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..support.children import DEADLINE, Ended, run_program

START = """
import asyncio, os, sqlite3, sys, threading, time
import aiosqlite
from aiosqlitepool import SQLiteConnectionPool, PoolUsageError

async def plain_factory():
    return await aiosqlite.connect("app.db")

SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
FACTORY
"""

FACTORIES = {
    "a lambda": 'factory = lambda: aiosqlite.connect("app.db")',
    "an async function": "factory = plain_factory",
}


Run = Callable[..., Ended]


@pytest.fixture(params=FACTORIES.values(), ids=[name.replace(" ", "-") for name in FACTORIES])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Runs a program whose pool has this factory."""

    def run(program: str, before: str = "", **how: Any) -> Ended:
        return run_program(before + START.replace("FACTORY", request.param) + program, tmp_path, **how)

    return run


def ends_well(ended: Ended, *but: str) -> None:
    assert ended.seconds < DEADLINE
    assert not ended.untidy(*but), ended.err


def says_what_was_left_open(ended: Ended, *words: str) -> None:
    assert "ResourceWarning: <SQLiteConnectionPool 'shop'" in ended.err, ended.err
    assert "was never closed" in ended.err
    for word in words:
        assert word in ended.err


def test_a_program_that_forgets_to_close_a_local_pool_ends_and_says_so(run: Run) -> None:
    ended = run("""
async def main():
    pool = SQLiteConnectionPool(factory, name="shop")
    async with pool.connection() as connection:
        await connection.execute("SELECT 1")
    print("done")
asyncio.run(main())
""")
    assert (ended.code, ended.out) == (0, "done\n"), ended.err
    says_what_was_left_open(ended, "1 idle")
    ends_well(ended)


def test_a_program_that_forgets_to_close_a_module_level_pool_ends_and_says_so(run: Run) -> None:
    ended = run("""
pool = SQLiteConnectionPool(factory, name="shop")
async def main():
    async with pool.connection() as connection:
        await connection.execute("SELECT 1")
    print("done")
asyncio.run(main())
""")
    assert (ended.code, ended.out) == (0, "done\n"), ended.err
    says_what_was_left_open(ended, "1 idle")
    ends_well(ended)


def test_a_program_that_never_releases_a_connection_ends_and_names_the_holder(run: Run) -> None:
    ended = run("""
pool = SQLiteConnectionPool(factory, name="shop")
async def main():
    global connection
    connection = await pool.acquire(label="the till")
    await connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    await connection.execute("INSERT INTO t VALUES (1)")
    print("done")
asyncio.run(main())
""")
    assert (ended.code, ended.out) == (0, "done\n"), ended.err
    says_what_was_left_open(ended, "1 used", "the till")
    ends_well(ended)


def test_a_connection_that_a_program_loses_is_taken_back_rolled_back_and_its_holder_named(run: Run) -> None:
    ended = run("""
pool = SQLiteConnectionPool(factory, 1, name="shop")
async def work():
    connection = await pool.acquire(label="the till")
    await connection.execute("CREATE TABLE t (x)")
    await connection.execute("BEGIN")
    await connection.execute("INSERT INTO t VALUES (1)")
async def main():
    await work()
    async with pool.connection() as connection:
        print(await connection.execute_fetchall("SELECT x FROM t"))
    await pool.close()
asyncio.run(main())
""")
    assert (ended.code, ended.out) == (0, "[]\n"), ended.err
    assert "'shop': a holder never released its connection, so the pool reclaimed it: Task-1 [the till]" in ended.err
    ends_well(ended)


def test_a_program_that_closes_its_pool_says_nothing(run: Run) -> None:
    ended = run("""
async def main():
    async with SQLiteConnectionPool(factory, name="shop", min_size=3) as pool:
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")
    assert threading.active_count() == 1, threading.enumerate()
asyncio.run(main())
""")
    assert (ended.code, ended.err) == (0, "")
    ends_well(ended)


def test_ctrl_c_in_the_middle_of_a_statement_ends_the_program(run: Run) -> None:
    ended = run(
        """
async def main():
    async with SQLiteConnectionPool(factory, name="shop") as pool:
        async with pool.connection() as connection:
            asyncio.get_running_loop().call_later(0.1, print, "ready")
            await connection.execute_fetchall(SLOW)
asyncio.run(main())
""",
        interrupt=True,
    )
    assert ended.code in (-2, 130, 1)
    assert "KeyboardInterrupt" in ended.err
    ends_well(ended, "Traceback")  # Ctrl-C's own


def test_ctrl_c_with_a_module_level_pool_in_the_middle_of_work_ends_the_program(run: Run) -> None:
    ended = run(
        """
pool = SQLiteConnectionPool(factory, pool_size=3, name="shop")
async def work():
    while True:
        async with pool.connection() as connection:
            await connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
            await connection.execute_fetchall("SELECT * FROM t")
            await connection.rollback()
async def main():
    asyncio.get_running_loop().call_later(0.2, print, "ready")
    await asyncio.gather(*(work() for _ in range(10)))
asyncio.run(main())
""",
        interrupt=True,
    )
    assert ended.code in (-2, 130, 1)
    says_what_was_left_open(ended)
    ends_well(ended, "Traceback")


def test_ctrl_c_while_callers_queue_and_connections_open_ends_the_program(run: Run) -> None:
    ended = run(
        """
async def slow_factory():
    await asyncio.sleep(30)
    return await factory()
async def main():
    async with SQLiteConnectionPool(slow_factory, pool_size=1, name="shop") as pool:
        asyncio.get_running_loop().call_later(0.2, print, "ready")
        await asyncio.gather(*(pool.acquire() for _ in range(5)))
asyncio.run(main())
""",
        interrupt=True,
    )
    assert ended.code in (-2, 130, 1)
    ends_well(ended, "Traceback")


def test_a_program_that_ends_while_a_connection_opens_says_nothing_of_the_opening(run: Run) -> None:
    ended = run("""
async def slow_factory():
    await asyncio.sleep(30)
    return await factory()
async def main():
    pool = SQLiteConnectionPool(slow_factory, name="shop")
    caller = asyncio.ensure_future(pool.acquire())
    while not pool.stats().used:
        await asyncio.sleep(0)
asyncio.run(main())
""")
    assert ended.code == 0
    assert "unhandled exception" not in ended.err
    ends_well(ended)


def test_an_exception_out_of_the_program_ends_it(run: Run) -> None:
    ended = run("""
pool = SQLiteConnectionPool(factory, name="shop")
async def main():
    async with pool.connection() as connection:
        await connection.execute("CREATE TABLE t (x)")
        await connection.execute("INSERT INTO t VALUES (1)")
        raise ValueError("the program's own")
asyncio.run(main())
""")
    assert ended.code == 1
    assert "ValueError: the program's own" in ended.err
    assert ended.err.count("Traceback") == 1, ended.err
    says_what_was_left_open(ended)
    ends_well(ended, "Traceback")


def test_a_loop_closed_with_a_statement_in_flight_lets_the_program_end(run: Run) -> None:
    ended = run("""
pool = SQLiteConnectionPool(factory, name="shop")
async def work():
    async with pool.connection() as connection:
        await connection.execute_fetchall(SLOW)
async def in_flight():
    while not pool.holders():  # whoever is lent a connection there uses it at once
        await asyncio.sleep(0.01)
loop = asyncio.new_event_loop()
task = loop.create_task(work())
loop.run_until_complete(in_flight())
loop.close()
print("closed")
task._log_destroy_pending = False  # that the program left its own task is not the pool's doing
""")
    assert (ended.code, ended.out) == (0, "closed\n"), ended.err
    says_what_was_left_open(ended, "1 used")
    ends_well(ended)


@pytest.mark.parametrize("run", [FACTORIES["a lambda"]], indirect=True)
def test_a_program_that_ends_in_the_middle_of_slow_python_code_in_a_worker_ends(run: Run) -> None:
    """The worker threads of what a lambda makes are daemons. A coroutine has started them before the pool sees them."""
    ended = run("""
def rows():
    while True:
        time.sleep(0.05)
        yield (1,)
async def main():
    connection = await pool.acquire()
    await connection.execute("CREATE TABLE t (x)")
    asyncio.ensure_future(connection.executemany("INSERT INTO t VALUES (?)", rows()))
    await asyncio.sleep(0.1)
pool = SQLiteConnectionPool(factory, name="shop")
asyncio.run(main())
""")
    assert ended.code == 0
    ends_well(ended)
    says_what_was_left_open(ended)


def test_a_loop_closed_while_a_transaction_is_undone_lets_the_program_end(run: Run) -> None:
    ended = run("""
pool = SQLiteConnectionPool(factory, name="shop")
async def work():
    async with pool.connection() as connection:
        await connection.execute("CREATE TABLE t (x)")
        await connection.execute("BEGIN")
        await connection.execute("INSERT INTO t VALUES (1)")
        asyncio.get_running_loop().stop()
loop = asyncio.new_event_loop()
task = loop.create_task(work())
task._log_destroy_pending = False
loop.run_forever()
loop.close()
del task
print("closed")
""")
    assert (ended.code, ended.out) == (0, "closed\n"), ended.err
    says_what_was_left_open(ended)
    ends_well(ended)


def test_a_loop_closed_while_callers_queue_and_connections_open_lets_the_program_end(run: Run) -> None:
    ended = run("""
connecting = asyncio.Event()
async def slow_factory():
    connecting.set()
    await asyncio.sleep(30)
pool = SQLiteConnectionPool(slow_factory, pool_size=1, name="shop")
loop = asyncio.new_event_loop()
tasks = [loop.create_task(pool.acquire()) for _ in range(3)]
loop.run_until_complete(connecting.wait())
assert pool.stats().waiting == 3  # also the one for which a connection opens
loop.close()
for task in tasks:
    task._log_destroy_pending = False
del task, tasks
print("closed")
""")
    assert (ended.code, ended.out) == (0, "closed\n"), ended.err
    says_what_was_left_open(ended)
    ends_well(ended)


def test_a_loop_closed_while_the_pool_waits_for_its_holders_lets_the_program_end(run: Run) -> None:
    ended = run("""
pool = SQLiteConnectionPool(factory, name="shop")
held = []
async def work():
    held.append(await pool.acquire())
    closing = asyncio.ensure_future(pool.close())
    closing._log_destroy_pending = False
    await asyncio.sleep(0)
loop = asyncio.new_event_loop()
loop.run_until_complete(work())
loop.close()
print("closed")
""")
    assert (ended.code, ended.out) == (0, "closed\n"), ended.err
    says_what_was_left_open(ended, "closing: 1 used")
    ends_well(ended)


FORKING = """
pool = SQLiteConnectionPool(factory, name="shop")
def in_the_child():
    async def main():
        try:
            async with pool.connection():
                pass
        except PoolUsageError as error:
            print("child:", error)
        await pool.close()
    asyncio.run(main())
async def before():
    async with pool.connection() as connection:
        await connection.execute("CREATE TABLE t (x)")
        await connection.execute("INSERT INTO t VALUES (1)")
        await connection.commit()
async def after():
    async with pool.connection() as connection:
        print("parent:", await connection.execute_fetchall("SELECT x FROM t"))
    await pool.close()
loop = asyncio.new_event_loop()
loop.run_until_complete(before())
"""


def forked_well(ended: Ended) -> None:
    assert ended.code == 0, ended.err
    assert "child: pool 'shop' was opened before this process was forked" in ended.out
    assert "parent: [(1,)]" in ended.out
    ends_well(ended)


def test_a_child_of_os_fork_is_told_so_and_the_parent_works_on(run: Run) -> None:
    ended = run(
        FORKING
        + """
child = os.fork()
if not child:
    in_the_child()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
loop.run_until_complete(after())
loop.close()
""",
        options=("-W", "default", "-W", "ignore::DeprecationWarning"),
    )
    forked_well(ended)


def test_a_child_of_multiprocessing_is_told_so_and_the_parent_works_on(run: Run) -> None:
    ended = run(
        "import multiprocessing"
        + FORKING
        + """
child = multiprocessing.get_context("fork").Process(target=in_the_child)
child.start()
child.join(5)
assert child.exitcode == 0, child.exitcode
loop.run_until_complete(after())
loop.close()
""",
        options=("-W", "default", "-W", "ignore::DeprecationWarning"),
    )
    forked_well(ended)


def test_a_child_forked_out_of_a_running_loop_with_a_connection_lent_ends(run: Run) -> None:
    ended = run(
        """
async def main():
    async with SQLiteConnectionPool(factory, name="shop") as pool:
        async with pool.connection() as connection:
            await connection.execute("CREATE TABLE t (x)")
            child = os.fork()
            if not child:
                try:
                    pool.stats(), pool.holders(), repr(pool)
                finally:
                    os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            await connection.execute("INSERT INTO t VALUES (1)")
            await connection.commit()
    print("done")
asyncio.run(main())
""",
        options=("-W", "default", "-W", "ignore::DeprecationWarning"),
    )
    assert (ended.code, ended.out, ended.err) == (0, "done\n", "")
    ends_well(ended)


def test_a_second_event_loop_is_told_that_the_pool_belongs_to_the_first(run: Run) -> None:
    ended = run("""
pool = SQLiteConnectionPool(factory, name="shop")
async def use():
    async with pool.connection() as connection:
        await connection.execute("SELECT 1")
asyncio.run(use())
try:
    asyncio.run(use())
except PoolUsageError as error:
    print(error)
asyncio.run(pool.close())
""")
    assert ended.code == 0, ended.err
    assert "belongs to another event loop" in ended.out
    assert ended.err == ""
    ends_well(ended)


def test_a_second_event_loop_in_another_thread_leaves_the_first_one_working(run: Run) -> None:
    ended = run("""
pool = SQLiteConnectionPool(factory, name="shop")
async def use():
    async with pool.connection() as connection:
        return await connection.execute_fetchall("SELECT 1")
def elsewhere():
    try:
        asyncio.run(use())
    except PoolUsageError as error:
        print(error)
    try:
        asyncio.run(pool.close())
    except PoolUsageError as error:
        print(error)
async def main():
    await use()
    await asyncio.to_thread(elsewhere)
    print(await use())
    await pool.close()
asyncio.run(main())
""")
    assert ended.code == 0, ended.err
    assert "belongs to another event loop" in ended.out
    assert "must be closed in the event loop that it was opened in" in ended.out
    assert "[(1,)]" in ended.out
    assert ended.err == ""
    ends_well(ended)


def test_where_a_process_cannot_fork_the_pool_works_all_the_same(run: Run) -> None:
    ended = run(
        """
async def main():
    async with SQLiteConnectionPool(factory, name="shop") as pool, pool.connection() as connection:
        print(await connection.execute_fetchall("SELECT 1"))
asyncio.run(main())
""",
        before="import os\ndel os.fork, os.register_at_fork  # as on Windows\n",
    )
    assert (ended.code, ended.out, ended.err) == (0, "[(1,)]\n", "")
    ends_well(ended)
