"""The custom subscribers, on pools that do what they are to tell of."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiosqlite
import pytest

from aiosqlitepool import PoolConnectionAcquireTimeoutError, SQLiteConnectionPool
from aiosqlitepool.events import AcquireTimedOut
from examples import custom_subscribers
from examples.custom_subscribers import SlowAcquires, StatsD, Trails, trail

from ..support.files import make_database
from ..support.pools import pool_of, queued
from ..support.stub import StubDriver
from ..support.timeless import block, timeless

Pool = SQLiteConnectionPool[aiosqlite.Connection]


# -- slow acquires


@timeless
async def test_a_slow_acquire_is_logged_with_whom_it_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    async with pool_of(StubDriver(), 1, slow_acquire=0.1, subscribers=[SlowAcquires()]) as pool:
        async with pool.connection(label="nightly report"):
            waiter = await queued(pool, "GET /users")
            await asyncio.sleep(0.25)
        await pool.release(await waiter)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("GET /users waited 0.250 s for pool app.db: ")
    assert "[nightly report] has held connection 1" in record.getMessage()


@timeless
async def test_an_acquire_that_was_fast_enough_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with pool_of(StubDriver(), 1, slow_acquire=0.1, subscribers=[SlowAcquires()]) as pool:
        async with pool.connection():
            waiter = await queued(pool, "GET /users")
            await asyncio.sleep(0.05)
        await pool.release(await waiter)
        async with pool.connection():
            pass
    assert caplog.records == []


@timeless
async def test_detached_it_logs_no_more(caplog: pytest.LogCaptureFixture) -> None:
    async with pool_of(StubDriver(), 1, slow_acquire=0) as pool:
        detach = pool.subscribe(SlowAcquires())
        async with pool.connection():
            pass
        detach()
        await pool.release(await pool.acquire())
        assert len(caplog.records) == 1


# -- trails


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return make_database(tmp_path / "app.db")


@pytest.fixture
async def pool(file: Path) -> AsyncIterator[Pool]:
    async with SQLiteConnectionPool(
        lambda: aiosqlite.connect(file), 2, slow_acquire=None, subscribers=[Trails()]
    ) as pool:
        yield pool


async def test_an_error_report_has_what_happened_before(pool: Pool) -> None:
    async def request() -> None:
        async with pool.connection(label="GET /users") as connection:
            await connection.execute("INSERT INTO note (text) VALUES ('never committed')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised, trail():
        await request()
    report = "".join(traceback.format_exception(raised.value))
    told = [line for line in report.splitlines() if line.startswith("before that: ")]
    assert [line.split()[2].partition("(")[0] for line in told] == [
        "ConnectionCreated",
        "ConnectionAcquired",
        "ConnectionReleased",
        "RolledBackOnReturn",
    ]
    assert "label='GET /users'" in told[1]


async def test_two_requests_at_once_have_a_trail_each(pool: Pool) -> None:
    async def request(label: str) -> set[str | None]:
        with trail() as events:
            for _ in range(5):
                async with pool.connection(label=label):
                    await asyncio.sleep(0)
        return {event.label for event in events if hasattr(event, "label")}

    assert await asyncio.gather(request("GET /users"), request("GET /posts")) == [{"GET /users"}, {"GET /posts"}]


async def test_what_a_subtask_does_is_on_the_trail_of_its_request(pool: Pool) -> None:
    async def part() -> None:
        async with pool.connection(label="a part"):
            pass

    with trail() as events:
        await asyncio.create_task(part())
    assert "a part" in {getattr(event, "label", None) for event in events}


async def test_only_the_last_events_are_kept(pool: Pool) -> None:
    with trail(3) as events:
        for number in range(10):
            async with pool.connection(label=str(number)):
                pass
    assert [(event.name, getattr(event, "label", None)) for event in events] == [
        ("release", "8"),
        ("acquire_wait", "9"),
        ("release", "9"),
    ]


async def test_a_timeout_is_on_the_trail_too(file: Path) -> None:
    async with (
        SQLiteConnectionPool(lambda: aiosqlite.connect(file), 1, acquisition_timeout=0, subscribers=[Trails()]) as pool,
        pool.connection(),
    ):
        with pytest.raises(PoolConnectionAcquireTimeoutError), trail() as events:
            await pool.acquire()
    assert [type(event) for event in events] == [AcquireTimedOut]


async def test_where_no_trail_is_kept_nothing_is_written(pool: Pool) -> None:
    with trail() as events:
        pass
    async with pool.connection():
        pass
    assert list(events) == []
    assert pool.stats().subscriber_errors == 0


# -- StatsD


class Server:
    """What a StatsD server hears."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(60)
        self.port: int = self._socket.getsockname()[1]

    def hear(self, until: str) -> list[str]:
        """Every line up to the first that begins so."""
        lines: list[str] = []
        while not lines or not lines[-1].startswith(until):
            lines.append(self._socket.recv(65536).decode())
        return lines

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def statsd(server: Server) -> Iterator[StatsD]:
    statsd = StatsD(port=server.port)
    yield statsd
    statsd.close()


PREFIX = "aiosqlitepool.app_db"


def test_a_statsd_server_hears_of_every_event(server: Server, statsd: StatsD) -> None:
    @timeless
    async def use() -> None:
        async with pool_of(StubDriver(), 1, subscribers=[statsd]) as pool:
            async with pool.connection():
                waiter = await queued(pool)
                await asyncio.sleep(0.25)
            held = await waiter
            block(2)
            await pool.release(held)

    use()
    heard = server.hear(f"{PREFIX}.pool_close")
    assert heard.count(f"{PREFIX}.acquire_wait:1|c") == 2
    assert heard.count(f"{PREFIX}.release:1|c") == 2
    assert heard.count(f"{PREFIX}.create:1|c") == 1
    assert [line for line in heard if line.endswith("|g")][:3] == [
        f"{PREFIX}.used:0|g",
        f"{PREFIX}.idle:0|g",
        f"{PREFIX}.waiting:0|g",
    ]
    waits = [line for line in heard if line.startswith(f"{PREFIX}.wait:")]
    assert waits == [f"{PREFIX}.wait:0.000|ms", f"{PREFIX}.wait:250.000|ms"]
    assert f"{PREFIX}.use:2000.000|ms" in heard
    assert heard[-1] == f"{PREFIX}.pool_close:1|c"


def test_levels_are_told_again_and_again_until_the_pool_closes(server: Server, statsd: StatsD) -> None:
    @timeless
    async def use() -> None:
        async with pool_of(StubDriver(), 1, subscribers=[statsd]) as pool:
            async with pool.connection():
                waiter = await queued(pool, "a waiter")
                await asyncio.sleep(25)
            await pool.release(await waiter)
        await asyncio.sleep(100)

    use()
    heard = server.hear(f"{PREFIX}.pool_close")
    assert [line for line in heard if "waiting" in line] == [
        f"{PREFIX}.waiting:0|g",
        f"{PREFIX}.waiting:1|g",
        f"{PREFIX}.waiting:1|g",
    ]


async def test_attached_to_a_pool_that_is_open_it_tells_levels_at_once(server: Server, statsd: StatsD) -> None:
    async with pool_of(StubDriver(), 3, min_size=2) as pool:
        detach = pool.subscribe(statsd)
        assert server.hear(f"{PREFIX}.waiting") == [
            f"{PREFIX}.{level}|g" for level in ("used:0", "idle:2", "waiting:0")
        ]
        detach()
        assert pool.events.handlers == {}


async def test_a_server_that_is_not_there_is_no_reason_to_fail(server: Server, statsd: StatsD) -> None:
    server.close()
    async with pool_of(StubDriver(), 1, subscribers=[statsd]) as pool:
        for _ in range(10):
            async with pool.connection():
                pass
        statsd.close()
        async with pool.connection():
            pass
    assert pool.stats().subscriber_errors == 0


# -- all three


def test_it_runs_as_its_docstring_says() -> None:
    command = [sys.executable, "-X", "dev", custom_subscribers.__file__]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "WARNING GET /users waited" in ran.stderr
    assert "[nightly report] has held connection 1" in ran.stderr
    assert "\nbefore that: AcquireTimedOut(pool='app.db'" in ran.stderr
