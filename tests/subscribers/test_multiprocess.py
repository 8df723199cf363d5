"""prometheus_client's multiprocess mode, with real processes; each is a child, as its mode is chosen at import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..support.children import child
from .conftest import system_of

# One worker: commands come in on stdin, one a line, and each is answered by a line.
WORKER = """
import asyncio, contextlib, os, sqlite3, sys
from aiosqlitepool import SQLiteConnectionPool, SQLiteDatabase
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

class Connection:
    async def execute(self, sql): return self
    async def rollback(self): pass
    async def close(self): pass

async def connect():
    return Connection()

async def main():
    subscriber = PrometheusSubscriber()
    pool = SQLiteConnectionPool(connect, 2, name="app.db", subscribers=[subscriber])
    held, waiters = [], []
    async def hold(): held.append(await pool.acquire())
    async def wait():
        waiters.append(asyncio.create_task(pool.acquire()))
        await asyncio.sleep(0)
    async def release(): await pool.release(held.pop())
    async def close():
        while held: await release()
        for waiter in waiters: await pool.release(await waiter)
        await pool.close()
    async def transact():
        async with SQLiteDatabase(":memory:", name="memory", subscribers=[subscriber]) as database:
            await database.run_write(lambda connection: connection.execute("CREATE TABLE t (x)").close())
    async def query():
        async with SQLiteDatabase(":memory:", name="memory", slow_statement=0, subscribers=[subscriber]) as database:
            async with database.write("GET /") as connection:
                await connection.execute("CREATE TABLE t (x)")
                await connection.execute_fetchall("SELECT x FROM t")
                with contextlib.suppress(sqlite3.OperationalError):
                    await connection.execute("SELECT y FROM t")
    async def tenants():
        for number in range(130):
            async with SQLiteConnectionPool(connect, name=f"tenant-{number}", subscribers=[subscriber]) as tenant:
                async with tenant.connection(): pass
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        await locals()[line]()
        subscriber.refresh()
        print(os.getpid(), flush=True)

asyncio.run(main())
"""

# What any worker would answer to a scrape.
SCRAPE = """
import json
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(json.dumps([[s.name, s.labels, s.value] for f in registry.collect() for s in f.samples]))
"""

COUNT = "db_client_connection_count"
STATE = "db_client_connection_state"


class Workers:
    def __init__(self, directory: Path, children: ExitStack) -> None:
        self.environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)}
        self.processes: list[subprocess.Popen[str]] = []
        self._children = children

    def start(self, program: str = WORKER) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        started = child([sys.executable, "-c", program], env=self.environment, stdin=pipe, stdout=pipe)
        process = self._children.enter_context(started)
        self.processes.append(process)
        return process

    def tell(self, process: subprocess.Popen[str], *commands: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        for command in commands:
            process.stdin.write(f"{command}\n")
            process.stdin.flush()
            assert process.stdout.readline().strip() == str(process.pid)

    def end(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        assert process.wait() == 0
        process.stdout.close()

    def kill(self, process: subprocess.Popen[str]) -> None:
        """As a server may: without a chance to write anything."""
        process.kill()
        process.communicate()

    def scrape(self, name: str, pool: str = "app.db", **labels: str) -> float | None:
        output = subprocess.run(
            [sys.executable, "-c", SCRAPE], env=self.environment, check=True, capture_output=True, text=True, timeout=60
        ).stdout
        expected = {"db_client_connection_pool_name": pool, **system_of(name), **labels}
        for sample, found, value in json.loads(output):
            if sample == name and {key: text for key, text in found.items() if text} == expected:
                return float(value)
        return None


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    with ExitStack() as children:
        workers = Workers(tmp_path, children)
        yield workers
        for process in workers.processes:
            if process.poll() is None:
                workers.end(process)


def test_levels_of_two_processes_add_up(workers: Workers) -> None:
    first, second = workers.start(), workers.start()
    workers.tell(first, "hold", "hold", "wait")
    workers.tell(second, "hold", "hold", "release")
    assert workers.scrape(COUNT, **{STATE: "used"}) == 3
    assert workers.scrape(COUNT, **{STATE: "idle"}) == 1
    assert workers.scrape("db_client_connection_pending_requests") == 1
    assert workers.scrape("db_client_connection_max") == 4
    assert (workers.scrape("aiosqlitepool_oldest_checkout_age_seconds") or 0) > 0
    workers.tell(first, "close")
    workers.tell(second, "close")


def test_limits_are_those_of_one_process_and_the_lag_is_that_of_the_slowest(workers: Workers) -> None:
    first, second = workers.start(), workers.start()
    workers.tell(first, "hold")
    workers.tell(second, "hold")
    assert workers.scrape("aiosqlitepool_acquisition_timeout_seconds") == 30
    assert workers.scrape("aiosqlitepool_leak_threshold_seconds") == 60
    assert workers.scrape("aiosqlitepool_loop_lag_seconds") is not None
    workers.tell(first, "close")
    workers.tell(second, "close")
    assert workers.scrape("aiosqlitepool_connection_abandoned_total") == 0


def test_the_time_of_a_backup_outlives_its_process(workers: Workers, tmp_path: Path) -> None:
    target = tmp_path.parent / "copy.db"
    program = WORKER.replace(
        "async def query():",
        f"""async def back_up():
        async with SQLiteDatabase(":memory:", name="memory", subscribers=[subscriber]) as database:
            await database.backup({str(target)!r})
    async def query():""",
    )
    process = workers.start(program)
    workers.tell(process, "back_up")
    workers.end(process)
    labels = {"aiosqlitepool_backup_result": "completed"}
    assert workers.scrape("aiosqlitepool_backups_total", "memory/write", **labels) == 1
    assert (workers.scrape("aiosqlitepool_backup_last_time_seconds", "memory/write", **labels) or 0) > 1.7e9


def test_counters_and_histograms_of_two_processes_add_up(workers: Workers) -> None:
    first, second = workers.start(), workers.start()
    for process in (first, second):
        workers.tell(process, "hold", "release", "hold", "close")
    assert workers.scrape("aiosqlitepool_acquires_total", aiosqlitepool_acquire_path="new") == 2
    assert workers.scrape("aiosqlitepool_acquires_total", aiosqlitepool_acquire_path="idle") == 2
    assert workers.scrape("aiosqlitepool_acquires_total", aiosqlitepool_acquire_path="queued") == 0
    assert workers.scrape("db_client_connection_wait_time_seconds_count") == 4
    assert workers.scrape("db_client_connection_use_time_seconds_count") == 4
    assert workers.scrape("db_client_connection_create_time_seconds_count") == 2


def test_transactions_of_two_processes_add_up(workers: Workers) -> None:
    for process in (workers.start(), workers.start()):
        workers.tell(process, "transact")
    committed = {"aiosqlitepool_transaction_outcome": "committed"}
    assert workers.scrape("aiosqlitepool_transaction_duration_seconds_count", "memory/write", **committed) == 2
    assert workers.scrape("aiosqlitepool_transaction_wait_time_seconds_count", "memory/write") == 2
    assert workers.scrape("aiosqlitepool_busy_retries_total", "memory/read", aiosqlitepool_busy_kind="busy") == 0
    assert workers.scrape("aiosqlitepool_busy_retries_total", aiosqlitepool_busy_kind="busy") is None


def test_statements_of_two_processes_add_up(workers: Workers) -> None:
    for process in (workers.start(), workers.start()):
        workers.tell(process, "query")
    count, select = "db_client_operation_duration_seconds_count", {"db_operation_name": "SELECT"}
    assert workers.scrape(count, "memory/write", **select) == 2
    assert workers.scrape(count, "memory/write", **select, error_type="sqlite3.OperationalError") == 2
    assert workers.scrape(count, "memory/read", **select) == 0
    slow, scan = "aiosqlitepool_statement_slow_total", {"aiosqlitepool_statement_plan_warning": "full scan of t"}
    assert workers.scrape(slow, "memory/write", db_query_summary="SELECT t", **scan) == 2
    assert workers.scrape(slow, "memory/write", db_query_summary="other") == 0
    time = "aiosqlitepool_statement_time_seconds_total"
    assert workers.scrape(time, "memory/write", db_query_summary="SELECT t") is None


def test_each_process_shows_the_statements_that_it_met_first_and_the_labels(workers: Workers) -> None:
    program = WORKER.replace("PrometheusSubscriber()", "PrometheusSubscriber(statement_summaries=1, by_label=True)")
    for process in (workers.start(program), workers.start(program)):
        workers.tell(process, "query")
    time = "aiosqlitepool_statement_time_seconds_total"
    shown = {
        name: workers.scrape(time, "memory/write", db_query_summary=name) for name in ("CREATE t", "other", "SELECT t")
    }
    assert (shown["CREATE t"] or 0) > 0
    assert (shown["other"] or 0) > 0
    assert shown["SELECT t"] is None
    uses = "db_client_connection_use_time_seconds_count"
    assert workers.scrape(uses, "memory/write", aiosqlitepool_acquire_label="GET /") == 2


def test_a_closed_pools_levels_leave_the_sums_and_its_counters_stay(workers: Workers) -> None:
    first, second = workers.start(), workers.start()
    workers.tell(first, "hold", "close")
    workers.tell(second, "hold")
    assert workers.scrape("db_client_connection_max") == 2
    assert workers.scrape(COUNT, **{STATE: "used"}) == 1
    assert (
        workers.scrape("aiosqlitepool_connection_closed_total", aiosqlitepool_connection_close_reason="pool_closed")
        == 1
    )
    assert workers.scrape("aiosqlitepool_acquires_total", aiosqlitepool_acquire_path="new") == 2
    workers.tell(second, "close")


def test_past_pools_of_a_process_have_a_bounded_number_of_series_that_add_up(workers: Workers) -> None:
    process = workers.start()
    workers.tell(process, "tenants")
    opened = {
        pool: workers.scrape("aiosqlitepool_acquires_total", pool, aiosqlitepool_acquire_path="new")
        for pool in ("tenant-0", "tenant-99", "tenant-100", "_OTHER")
    }
    assert opened == {"tenant-0": 1, "tenant-99": 1, "tenant-100": None, "_OTHER": 30}


def test_a_process_that_ended_leaves_the_sums(workers: Workers) -> None:
    first, second = workers.start(), workers.start()
    workers.tell(first, "hold", "release")
    workers.tell(second, "hold", "release")
    workers.end(first)
    assert workers.scrape("db_client_connection_max") == 2
    assert workers.scrape(COUNT, **{STATE: "idle"}) == 1
    workers.tell(second, "close")


def test_a_process_that_is_killed_leaves_the_sums_because_another_one_looks_for_it(workers: Workers) -> None:
    """Bug: its levels stayed, and its waiters were stuck, for ever."""
    first, second = workers.start(), workers.start()
    workers.tell(first, "hold", "hold", "wait")
    workers.tell(second, "hold")
    assert workers.scrape("db_client_connection_max") == 4
    workers.kill(first)
    while workers.scrape("db_client_connection_max") != 2:
        pass  # the test's own deadline ends this
    assert workers.scrape("db_client_connection_pending_requests") == 0
    assert workers.scrape("aiosqlitepool_acquires_total", aiosqlitepool_acquire_path="new") == 3
    workers.tell(second, "close")


def test_a_pool_that_closed_has_left_the_sums_before_its_process_is_killed(workers: Workers) -> None:
    """Bug: a server that ends its workers by a signal runs no `atexit`, and a reload doubled the limits."""
    process = workers.start(WORKER.replace("subscriber.refresh()", "pass"))
    workers.tell(process, "hold", "close")
    workers.kill(process)
    assert workers.scrape("db_client_connection_max") == 0


def test_levels_are_brought_up_to_date_without_being_asked(workers: Workers) -> None:
    process = workers.start(WORKER.replace("subscriber.refresh()", "pass"))
    workers.tell(process, "hold", "hold", "wait")
    while workers.scrape("db_client_connection_pending_requests") != 1:
        pass  # the test's own deadline ends this
    workers.tell(process, "close")


def test_a_registry_with_a_metric_of_that_name_is_refused_with_it_and_nothing_is_left_behind(workers: Workers) -> None:
    code = """
from prometheus_client import CollectorRegistry, Counter
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber
registry = CollectorRegistry()
Counter("db_client_connection_timeouts", "mine", registry=registry)
try:
    PrometheusSubscriber(registry)
except ValueError as error:
    print(error, [family.name for family in registry.collect()])
"""
    output = subprocess.run(
        [sys.executable, "-c", code], env=workers.environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert "names already" in output
    assert "db_client_connection_timeouts" in output
    assert output.strip().endswith("['db_client_connection_timeouts']")


FORKING = """
import asyncio, os, subprocess, sys
from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

class Connection:
    async def execute(self, sql): return self
    async def rollback(self): pass
    async def close(self): pass

async def connect():
    return Connection()

subscriber = PrometheusSubscriber()

async def work(name):
    async with SQLiteConnectionPool(connect, 2, name=name, subscribers=[subscriber]) as pool:
        async with pool.connection(), pool.connection():
            subscriber.refresh()
            os.write(said, b".")
            os.read(go, 1)

said_end, said = os.pipe()
go, go_end = os.pipe()
children = []
for _ in range(2):
    if not (child := os.fork()):
        asyncio.run(work("app.db"))
        sys.exit(0)
    children.append(child)
    os.read(said_end, 1)
print(subprocess.run([sys.executable, "-c", SCRAPE], capture_output=True, text=True).stdout, end="")
os.write(go_end, b"..")
for child in children:
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_workers_forked_after_the_subscriber_was_made_add_up(workers: Workers) -> None:
    code = f"SCRAPE = {SCRAPE!r}\n{FORKING}"
    output = subprocess.run(
        [sys.executable, "-c", code], env=workers.environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout
    used = [value for name, labels, value in json.loads(output) if name == COUNT and labels[STATE] == "used"]
    assert used == [4]


FORKING_DURING_A_BATCH = """
import os, signal, threading
from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.events import StatementKind
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

subscriber = PrometheusSubscriber()
kind = StatementKind("SELECT", "SELECT t", None)
at_work, forking, written = threading.Event(), threading.Event(), []

class Runs(list):
    def __iter__(self):
        at_work.set()
        forking.wait()
        yield from super().__iter__()
        written.append(True)

def deliver(name, runs):
    pool = SQLiteConnectionPool(lambda: None, name=name, subscribers=[subscriber])
    pool.events.emit_statements({kind: runs})

threading.Thread(target=deliver, args=("parent.db", Runs([0.1]))).start()
at_work.wait()
os.register_at_fork(before=forking.set)
child = os.fork()
if not child:
    signal.alarm(60)  # instead of hanging forever
    deliver("child.db", [0.1])
    os._exit(len(written))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forks_when_no_batch_is_being_written(workers: Workers) -> None:
    # Python 3.12 warns of forking beside threads, which is what this is about.
    python = [sys.executable, "-W", "ignore::DeprecationWarning"]
    done = subprocess.run(
        [*python, "-c", FORKING_DURING_A_BATCH],
        env=workers.environment, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("1", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="is so in every other test")
def test_where_a_process_cannot_fork_its_metrics_are_kept_all_the_same(workers: Workers) -> None:
    process = workers.start("import os\ndel os.fork, os.register_at_fork\n" + WORKER)  # as on Windows
    workers.tell(process, "hold")
    assert workers.scrape(COUNT, **{STATE: "used"}) == 1
    workers.tell(process, "close")
