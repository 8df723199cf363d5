"""`python -m aiosqlitepool top` as its user sees it: in a terminal, in a pipe, and with what is missing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.routing import Mount

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.__main__ import main
from aiosqlitepool.debug import DebugApp
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

from ...support.children import child
from ...support.pools import StubPool, pool_of, queued
from ...support.serving import served
from ...support.stub import StubDriver
from .conftest import metrics_of
from .rows import row

COMMAND = [sys.executable, "-m", "aiosqlitepool", "top"]
UNIX = pytest.mark.skipif(os.name != "posix", reason="needs signals and terminals as POSIX has them")


@pytest.fixture
async def url(driver: StubDriver) -> AsyncIterator[str]:
    """The endpoint of a pool with one holder and one waiter."""
    registry = CollectorRegistry()
    pool: StubPool
    async with pool_of(driver, 2, min_size=0, subscribers=[PrometheusSubscriber(registry)]) as pool:
        async with pool.connection(), pool.connection():
            waiter = await queued(pool)
            with metrics_of(registry) as url:
                yield url
        await pool.release(await waiter)


def test_once_prints_one_table_without_control_codes(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", url, "--once", "--interval", "0.1"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert url in out
    assert re.search(r"app\.db  1 waiting, oldest \d", out)
    assert re.search(r"█{24}  2 used, 0 idle of 2  longest in use \d", out)
    assert re.search(r"last 0\.\d s +0/s +0/s +0/s", out)
    assert re.search(r"total +0 +2 +0 ", out)
    assert max(map(len, out.splitlines())) <= 100


def test_several_pools_each_have_their_lines(says: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        f'db_client_connection_{what}{{db_client_connection_pool_name="{name}"{state}}} {number}\n'
        for name in ("app.db/read", "app.db/write")
        for what, state, number in (("count", ',db_client_connection_state="used"', 1), ("max", "", 4))
    ]
    url = says((200, "text/plain", "".join(lines).encode()))
    assert main(["top", url, "--once", "--interval", "0.1"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^(app.db/\w+)  no waiters", out, re.MULTILINE) == ["app.db/read", "app.db/write"]
    assert out.count("██████░░░░░░░░░░░░░░░░░░  1 used, 0 idle of 4") == 2


def test_markup_in_a_name_is_only_a_name(says: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    label = 'db_client_connection_pool_name="[red]app[/]",db_client_connection_state="used"'
    url = says((200, "text/plain", f"db_client_connection_count{{{label}}} 1\n".encode()))
    assert main(["top", url, "--once", "--interval", "0.1"]) == 0
    assert "[red]app[/]" in capsys.readouterr().out


def test_in_a_pipe_it_prints_again_and_again(url: str) -> None:
    with child([*COMMAND, url, "--interval", "0.1"], stdout=subprocess.PIPE) as top:
        try:
            assert top.stdout is not None
            seen = 0
            for line in top.stdout:
                seen += "2 used, 0 idle of 2" in line
                if seen == 3:
                    break
        finally:
            top.send_signal(signal.SIGINT)
        rest = top.stdout.read()
        assert top.wait(30) == 0
    assert "\x1b" not in rest


@UNIX
def test_a_terminal_gets_a_board_that_leaves_it_as_it_was(url: str) -> None:
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    with child([*COMMAND, url, "--interval", "0.1"], stdout=theirs, stderr=theirs, env=environment) as top:
        os.close(theirs)
        shown = _until(ours, lambda text: text.count("2 used, 0 idle of 2") >= 3)
        top.send_signal(signal.SIGINT)
        shown += _until(ours, lambda text: False)
        assert top.wait(30) == 0
    os.close(ours)
    assert shown.count("\x1b[?1049h") == shown.count("\x1b[?1049l") == 1  # another screen, and back
    assert "\x1b[?25h" in shown.rpartition("2 used")[2]  # the cursor is there again
    assert "…" not in shown  # it all fits into 80 columns


def _until(terminal: int, done: Callable[[str], bool]) -> str:
    shown, deadline = "", time.monotonic() + 60
    while not done(shown):
        assert time.monotonic() < deadline, shown
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            read = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not read:
            break
        shown += read.decode(errors="replace")
    return shown


def test_an_endpoint_that_goes_away_is_told_and_waited_for(driver: StubDriver, says: Callable[..., str]) -> None:
    registry = CollectorRegistry()
    PrometheusSubscriber(registry).attach(pool := StubPool(driver, 3, name="app.db"))
    fine = (200, "text/plain", generate_latest(registry))
    url = says(fine, (503, "text/plain", b""), fine)
    with child([*COMMAND, url, "--interval", "0.1"], stdout=subprocess.PIPE) as top:
        assert top.stdout is not None
        try:
            seen: list[str] = []
            for line in top.stdout:
                seen += re.findall("no figures for .* returned HTTP status 503|0 used, 0 idle of 3", line)
                if len(seen) == 4:
                    break
        finally:
            top.send_signal(signal.SIGINT)
        top.stdout.read()
        assert top.wait(30) == 0
    # Its last figures stay, below what is wrong.
    assert [each.partition(" ")[0] for each in seen] == ["0", "no", "0", "0"]
    del pool


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["127.0.0.1:9", "--once"], 1, "error: cannot reach http://127.0.0.1:9/metrics: "),
        (["ftp://x"], 2, "error: argument URL: must be a URL like http://127.0.0.1:8000/metrics, not 'ftp://x'"),
        (
            ["ftp://x", "--statements"],
            2,
            "error: argument URL: must be a URL like http://127.0.0.1:8000/debug/pool/, not 'ftp://x'",
        ),
    ],
)
def test_what_is_wrong_at_first_ends_it(
    arguments: list[str], code: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", *arguments]) == code
    assert complaint in capsys.readouterr().err


# -- the debug page


@pytest.mark.parametrize("path", ["/debug/pool", "/debug/pool/", "/debug/pool/data.json"])
async def test_of_a_debug_page_it_shows_the_holders_too(
    driver: StubDriver, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with pool_of(driver, 2) as pool:
        app = Starlette(routes=[Mount("/debug/pool", DebugApp(pool))])
        async with served(app) as url, pool.connection("GET /users"):
            arguments = ["top", f"{url}{path}", "--once", "--interval", "0.1"]
            assert await asyncio.to_thread(main, arguments) == 0
    out = capsys.readouterr().out
    assert "1 used, 0 idle of 2" in out
    assert re.search(r"^#1  GET /users  \d", out, re.MULTILINE)


# -- statements


@pytest.fixture
async def page(database: Path) -> AsyncIterator[str]:
    """The debug page of a pool that ran 30 statements."""
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, name="app.db") as pool:
        async with pool.connection("GET /") as connection:
            await connection.execute("PRAGMA key = 'secret'")
            await connection.execute_fetchall("VALUES (1), (2), (3)")
            for number in range(28):
                await connection.execute(f"SELECT 'secret' AS a{number}")
        async with served(DebugApp(pool)) as url:
            yield url


async def test_once_prints_the_statements_without_control_codes(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["top", page, "--statements", "--once", "--sort", "rows", "--interval", "3600"]
    assert await asyncio.to_thread(main, arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"aiosqlitepool top  {page}/\n\napp.db  30 statements, the first 20 by rows\n")
    assert re.search(r"^statement +rows +total ", out, re.MULTILINE)
    assert re.search(r"^VALUES \(\?\), \.\.\. +3 ", out, re.MULTILINE)
    assert out.count("SELECT ? AS a") == 19
    assert "\x1b" not in out
    assert "secret" not in out
    assert max(map(len, out.splitlines())) <= 100


async def test_a_limit_may_be_given(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await asyncio.to_thread(main, ["top", page, "--statements", "--once", "--limit", "500"]) == 0
    assert capsys.readouterr().out.count("SELECT ? AS a") == 28


def test_statements_are_printed_again_and_again_also_if_the_page_goes_away(says: Callable[..., str]) -> None:
    pool = {"pool": "app.db", "statements": [], "statements_forgotten": 0}
    fine = (200, "application/json", json.dumps({"at": 0, "pools": [pool]}).encode())
    url = says(fine, (503, "text/plain", b""), fine)
    with child([*COMMAND, url, "--statements", "--interval", "0.1"], stdout=subprocess.PIPE) as top:
        assert top.stdout is not None
        try:
            seen: list[str] = []
            for line in top.stdout:
                seen += re.findall("^no figures|no statements yet", line)
                if len(seen) == 4:
                    break
        finally:
            top.send_signal(signal.SIGINT)
        rest = top.stdout.read()
        assert top.wait(30) == 0
    assert seen == ["no statements yet", "no figures", "no statements yet", "no statements yet"]
    assert "\x1b" not in rest


@UNIX
def test_a_terminal_gets_as_many_statements_as_fit(says: Callable[..., str]) -> None:
    rows = [asdict(row(f"SELECT a{number}", run_total=100 - number)) for number in range(40)]
    pool = {"pool": "app.db", "statements": rows, "statements_forgotten": 0}
    url = says((200, "application/json", json.dumps({"at": 100, "pools": [pool]}).encode()))
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "60", "LINES": "14"}
    command = [*COMMAND, url, "--statements", "--interval", "0.1"]
    with child(command, stdout=theirs, stderr=theirs, env=environment) as top:
        os.close(theirs)
        shown = _until(ours, lambda text: text.count("SELECT a0 ") >= 3)
        top.send_signal(signal.SIGINT)
        shown += _until(ours, lambda text: False)
        assert top.wait(30) == 0
    os.close(ours)
    assert shown.count("\x1b[?1049h") == shown.count("\x1b[?1049l") == 1  # another screen, and back
    assert "40 statements, the first 6 by total" in shown
    assert "SELECT a5 " in shown
    assert "SELECT a6 " not in shown


async def test_each_url_is_told_from_the_other(url: str, page: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await asyncio.to_thread(main, ["top", page, "--once"]) == 1
    assert f"error: {page}/metrics returned HTTP status 404 Not Found" in capsys.readouterr().err
    assert await asyncio.to_thread(main, ["top", url, "--once", "--statements"]) == 1
    assert "serves Prometheus metrics, and --statements reads a debug page: pass" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--sort", "rows"], "argument --sort: only with --statements"),
        (["--limit", "3"], "argument --limit: only with --statements"),
        (["--statements", "--sort", "name"], "argument --sort: invalid choice: 'name'"),
        *(
            (["--statements", f"--limit={value}"], f"must be a whole number from 1 on, not {value!r}")
            for value in ("0", "-1", "all", "²", "1.5")
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["top", "localhost", *arguments])
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-1", "nan", "soon", "1e9"])
def test_the_interval_must_be_a_time(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["top", "localhost", f"--interval={value}"])
    assert ended.value.code == 2
    assert f"must be a number of seconds from 0.1 to 3600, not {value!r}" in capsys.readouterr().err


@pytest.mark.parametrize("library", ["rich", "prometheus_client"])
def test_without_its_libraries_it_says_which_extra_brings_them(library: str) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; from aiosqlitepool.__main__ import main; "
    code += "sys.exit(main(['top', 'localhost']))"
    ran: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert "is missing; install it with: pip install 'aiosqlitepool[top]'" in ran.stderr
    assert "Traceback" not in ran.stderr
