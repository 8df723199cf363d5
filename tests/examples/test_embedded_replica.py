"""The embedded replica: alone, with a server that is not there, and with Turso's own sync server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import turso
import turso.aio

from aiosqlitepool import SQLiteDatabase
from examples import embedded_replica
from examples.embedded_replica import Replica
from examples.stack_local.programs import free_port

from ..support.turso_server import sync_server

PROGRAM = embedded_replica.__file__


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, PROGRAM, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with sync_server(tmp_path) as url:
        yield url


@pytest.fixture
def nobody() -> str:
    """Where no server is."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def here(tmp_path: Path) -> str:
    return str(tmp_path / "here.db")


@pytest.fixture
def there(tmp_path: Path) -> str:
    return str(tmp_path / "there.db")


async def execute(replica: Replica, *statements: str) -> None:
    async with replica.pool.connection() as connection:
        for statement in statements:
            await connection.execute(statement)
        await connection.commit()


# -- one machine


async def test_alone_it_is_a_pool_over_a_file(here: str) -> None:
    async with Replica(here).opened() as replica:
        await asyncio.gather(*(replica.add_note(f"note {number}") for number in range(9)))
        assert not await replica.synchronise()
    async with Replica(here).opened() as replica:
        assert await replica.notes() == [f"note {number}" for number in range(9)]


async def test_what_was_not_committed_is_rolled_back(here: str) -> None:
    async with Replica(here).opened() as replica:
        async with replica.pool.connection() as connection:
            await connection.execute("INSERT INTO note VALUES ('key', 'never committed')")
        assert await replica.notes() == []


def test_alone_it_runs_as_its_docstring_says(tmp_path: Path) -> None:
    assert run(tmp_path, "notes.db", "a note").stdout == "a note\n"
    assert run(tmp_path, "notes.db", "another").stdout == "a note\nanother\n"


# -- a server that is not there


async def test_the_first_start_needs_the_server(here: str, nobody: str) -> None:
    with pytest.raises(turso.Error, match="network error"):
        async with Replica(here, nobody).opened():
            raise AssertionError("it opened")


async def test_without_the_server_it_goes_on_and_sends_all_when_the_server_is_back(
    here: str, there: str, tmp_path: Path
) -> None:
    port = free_port()
    with sync_server(tmp_path, port) as url:
        async with Replica(here, url).opened():
            pass
    async with Replica(here, url).opened() as replica:
        await replica.add_note("written without a server")
        with pytest.raises(turso.Error, match="network error"):
            await replica.synchronise()
        assert await replica.notes() == ["written without a server"]
        with sync_server(tmp_path, port):
            await replica.synchronise()
            async with Replica(there, url).opened() as other:
                assert await other.notes() == ["written without a server"]


async def test_the_task_that_synchronises_outlives_a_server_that_is_gone(
    here: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with sync_server(tmp_path) as url:
        async with Replica(here, url).opened():
            pass
    stop = asyncio.Event()
    async with Replica(here, url).opened() as replica, asyncio.TaskGroup() as group:
        task = group.create_task(replica.keep_synchronised(stop, every=0.01))
        while len(caplog.records) < 3:
            await asyncio.sleep(0.01)
        assert not task.done()
        stop.set()
    said = [record.getMessage() for record in caplog.records if record.name == "replica"]
    assert said[0].startswith("not synchronised, trying again: ")
    assert said[-1].startswith("not synchronised, and stopping: ")
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


# -- two machines


async def test_what_is_committed_here_is_there_after_both_synchronised(server: str, here: str, there: str) -> None:
    async with Replica(here, server).opened() as one:
        await one.synchronise()
        async with Replica(there, server).opened() as two:
            await one.add_note("written here")
            await two.add_note("written there")
            assert await two.notes() == ["written there"]
            await one.synchronise()
            assert await two.synchronise()
            assert await one.synchronise()
            assert await one.notes() == await two.notes() == ["written here", "written there"]
            assert not await one.synchronise()


async def test_one_call_sends_and_fetches_for_every_connection_of_the_pool(server: str, here: str, there: str) -> None:
    async with Replica(here, server).opened() as one:
        await one.synchronise()
        async with Replica(there, server).opened() as two:
            held = [await one.pool.acquire() for _ in range(4)]
            for number, connection in enumerate(held):
                await connection.execute("INSERT INTO note VALUES (?, ?)", (f"key {number}", f"from {number}"))
                await connection.commit()
            await two.add_note("from there")
            await one.synchronise()
            await two.synchronise()
            await one.synchronise()
            assert await two.notes() == ["from 0", "from 1", "from 2", "from 3", "from there"]
            for connection in held:
                cursor = await connection.execute("SELECT count(*) FROM note")
                assert await cursor.fetchone() == (5,)
                await one.pool.release(connection)


async def test_the_task_sends_what_was_written_before_it_was_told_to_stop(server: str, here: str, there: str) -> None:
    stop = asyncio.Event()
    async with Replica(here, server).opened() as one, asyncio.TaskGroup() as group:
        group.create_task(one.keep_synchronised(stop, every=1000))
        await one.add_note("just before the end")
        stop.set()
    async with Replica(there, server).opened() as two:
        assert await two.notes() == ["just before the end"]


def test_two_machines_run_as_the_docstring_says(server: str, tmp_path: Path) -> None:
    assert run(tmp_path, "here.db", "--remote", server, "written here").stdout == "written here\n"
    assert run(tmp_path, "there.db", "--remote", server, "written there").stdout == "written here\nwritten there\n"
    here = run(tmp_path, "here.db", "--remote", server)
    assert (here.stdout, here.stderr) == ("written here\nwritten there\n", "")


# -- the limits that its docstring names


async def test_of_two_who_change_a_row_the_last_to_send_wins(server: str, here: str, there: str) -> None:
    async with Replica(here, server).opened() as one:
        await execute(one, "INSERT INTO note VALUES ('key', 'old')")
        await one.synchronise()
        async with Replica(there, server).opened() as two:
            await execute(one, "UPDATE note SET text = 'here' WHERE id = 'key'")
            await execute(two, "UPDATE note SET text = 'there' WHERE id = 'key'")
            for replica in (one, two, one):
                await replica.synchronise()
            assert await one.notes() == await two.notes() == ["there"]


async def test_of_two_new_rows_with_one_key_only_the_last_sent_remains(server: str, here: str, there: str) -> None:
    async with Replica(here, server).opened() as one:
        await one.synchronise()
        async with Replica(there, server).opened() as two:
            await execute(one, "INSERT INTO note VALUES ('1', 'here')")
            await execute(two, "INSERT INTO note VALUES ('1', 'there')")
            for replica in (one, two, one):
                await replica.synchronise()
            assert await one.notes() == await two.notes() == ["there"]


async def test_a_pull_while_a_transaction_writes_is_refused_and_comes_round_again(
    server: str, here: str, there: str
) -> None:
    async with Replica(here, server).opened() as one:
        await one.synchronise()
        async with Replica(there, server).opened() as two:
            await two.add_note("written there")
            await two.synchronise()
            async with one.pool.connection() as connection:
                await connection.execute("INSERT INTO note VALUES ('key', 'written here')")
                with pytest.raises(turso.Error, match="busy"):
                    await one.synchronise()
                await connection.commit()
            assert await one.synchronise()
            assert await one.notes() == ["written here", "written there"]


async def test_what_another_kind_of_connection_writes_is_never_sent(server: str, here: str, there: str) -> None:
    async with Replica(here, server).opened() as one:
        await one.synchronise()
        async with turso.aio.connect(here) as stranger:
            await stranger.execute("INSERT INTO note VALUES ('key', 'never sent')")
            await stranger.commit()
        assert await one.notes() == ["never sent"]
        await one.synchronise()
    async with Replica(there, server).opened() as two:
        assert await two.notes() == []


# -- from and to SQLite


async def test_what_is_copied_from_a_database_is_sent(server: str, here: str, there: str, tmp_path: Path) -> None:
    texts = [f"{number:03}" for number in range(99)]
    async with SQLiteDatabase(tmp_path / "app.db") as db:
        await db.migrate([embedded_replica.SCHEMA])
        await db.execute_many(
            "INSERT INTO note VALUES (?, ?)", [(f"{number:03}", f"{number:03}") for number in range(99)]
        )
    async with Replica(here, server).opened() as one:
        await one.copy_notes(str(tmp_path / "app.db"))
        await one.synchronise()
    async with Replica(there, server).opened() as two:
        assert await two.notes() == texts


async def test_sqlite_reads_the_file_of_a_replica_that_is_closed(server: str, here: str) -> None:
    async with Replica(here, server).opened() as one:
        await one.add_note("a note")
    with contextlib.closing(sqlite3.connect(here)) as connection:
        assert connection.execute("SELECT text FROM note").fetchall() == [("a note",)]


async def test_the_pool_counts_callers_and_knows_no_statements(here: str) -> None:
    async with Replica(here).opened() as replica:
        await replica.add_note("a note")
        assert await replica.pool.fetch_val("SELECT count(*) FROM note") == 1
        assert replica.pool.statements() == ()
        assert (replica.pool.stats().used, replica.pool.stats().idle) == (0, 1)
