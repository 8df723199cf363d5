"""The Litestar example over real HTTP: uvicorn, a port, a file."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from litestar import Litestar
from prometheus_client import CollectorRegistry

from aiosqlitepool.events import ConnectionReleased
from aiosqlitepool.testing import Recorder
from examples.litestar_service import create_app

from ..support.children import child
from ..support.serving import served

EXAMPLES = Path(__file__).parents[2] / "examples"
ADA, GRACE = {"owner": "Ada", "balance": 100}, {"owner": "Grace", "balance": 0}


@pytest.fixture
def app(tmp_path: Path) -> Litestar:
    return create_app(str(tmp_path / "bank.db"), CollectorRegistry())


@pytest.fixture
async def http(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    async with served(app, lifespan="on") as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        for account in (ADA, GRACE):
            assert (await client.post("/accounts", json=account)).status_code == 201
        yield client


async def balances(http: httpx.AsyncClient) -> list[int]:
    return [(await http.get(f"/accounts/{number}")).json()["balance"] for number in (1, 2)]


async def test_an_account_that_was_opened_is_there(http: httpx.AsyncClient) -> None:
    assert (await http.get("/accounts/1")).json() == {**ADA, "id": 1}


async def test_a_transfer_moves_money(http: httpx.AsyncClient) -> None:
    assert (await http.post("/transfers", json={"payer": 1, "payee": 2, "amount": 30})).status_code == 201
    assert await balances(http) == [70, 30]


async def test_an_account_that_is_not_there_is_not_found(http: httpx.AsyncClient) -> None:
    answer = await http.get("/accounts/999")
    assert (answer.status_code, answer.json()["detail"]) == (404, "there is no account 999")


@pytest.mark.parametrize("account", [{"owner": ""}, {"owner": "Alan", "balance": -1}])
async def test_an_account_that_makes_no_sense_is_refused(http: httpx.AsyncClient, account: dict[str, object]) -> None:
    assert (await http.post("/accounts", json=account)).status_code == 400


async def test_a_transfer_that_fails_half_way_is_rolled_back(http: httpx.AsyncClient) -> None:
    answer = await http.post("/transfers", json={"payer": 1, "payee": 999, "amount": 30})
    assert (answer.status_code, answer.json()["detail"]) == (404, "there is no account 999")
    assert await balances(http) == [100, 0]
    told = (await http.get("/metrics")).text
    assert 'aiosqlitepool_return_rollbacks_total{aiosqlitepool_rollback_cause="transaction"' in told


async def test_more_than_there_is_cannot_be_paid(http: httpx.AsyncClient) -> None:
    answer = await http.post("/transfers", json={"payer": 1, "payee": 2, "amount": 101})
    assert (answer.status_code, answer.json()["detail"]) == (409, "account 1 has less than 101")
    assert await balances(http) == [100, 0]


async def test_of_many_transfers_at_once_no_cent_is_lost(http: httpx.AsyncClient) -> None:
    moves = [{"payer": 1, "payee": 2, "amount": 1}] * 60 + [{"payer": 2, "payee": 1, "amount": 1}] * 60
    answers = await asyncio.gather(*(http.post("/transfers", json=move) for move in moves))
    moved = [move["payee"] for move, answer in zip(moves, answers, strict=True) if answer.status_code == 201]
    assert moved
    there = moved.count(2) - moved.count(1)
    assert await balances(http) == [100 - there, there]


async def test_the_answer_does_not_hold_the_connection(app: Litestar, http: httpx.AsyncClient) -> None:
    await http.get("/accounts/1")
    assert (app.state.pool.stats().used, app.state.pool.stats().idle) == (0, 1)


async def test_a_connection_is_labelled_with_its_route(app: Litestar, http: httpx.AsyncClient) -> None:
    recorder = Recorder()
    app.state.pool.subscribe(recorder)
    await http.get("/accounts/1")
    assert [event.label for event in recorder.of(ConnectionReleased)] == ["GET /accounts/{number}"]


async def test_when_no_connection_can_be_had_it_says_so(app: Litestar, http: httpx.AsyncClient) -> None:
    pool = app.state.pool
    held = [await pool.acquire(label="the test") for _ in range(4)]
    waiting = [asyncio.create_task(http.get("/accounts/1")) for _ in range(10)]
    waiting += [asyncio.create_task(pool.acquire()) for _ in range(200)]
    while pool.stats().waiting < 200:
        await asyncio.sleep(0.01)
    answer = await http.get("/accounts/1")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for connection in held:
        await pool.release(connection)


async def test_metrics_are_served_in_openmetrics_if_asked(http: httpx.AsyncClient) -> None:
    plain = await http.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    assert (
        'db_client_connection_max{db_client_connection_pool_name="bank.db",db_system_name="sqlite"} 4.0' in plain.text
    )
    asked = await http.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert asked.headers["content-type"].startswith("application/openmetrics-text")
    assert asked.text.endswith("# EOF\n")


async def test_the_debug_page_tells_who_holds_a_connection_and_what_for(app: Litestar, http: httpx.AsyncClient) -> None:
    page = await http.get("/debug/pool", follow_redirects=True)
    assert "<title>Connection pools</title>" in page.text
    async with app.state.pool.connection(label="the test"):
        (shown,) = (await http.get("/debug/pool/data.json")).json()["pools"]
    assert [holder["label"] for holder in shown["holders"]] == ["the test"]


async def test_its_documentation_lists_the_service_and_not_its_plumbing(http: httpx.AsyncClient) -> None:
    paths = (await http.get("/schema/openapi.json")).json()["paths"]
    assert set(paths) == {"/accounts", "/accounts/{number}", "/transfers"}


def test_it_runs_as_its_docstring_says(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "uvicorn", "--factory", "litestar_service:create_app", "--app-dir", str(EXAMPLES)]
    command += ["--host", "127.0.0.1", "--port", "0", "--no-use-colors"]
    environment = {**os.environ, "DATABASE": "bank.db"}
    with child(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as server:
        assert server.stderr is not None
        try:
            heard = next(line for line in server.stderr if "Uvicorn running on" in line)
            url = heard.split("running on ")[1].split()[0]
            assert httpx.post(f"{url}/accounts", json=ADA, timeout=60).json() == {**ADA, "id": 1}
        finally:
            server.terminate()
            rest = server.stderr.read()
    assert "Application shutdown complete" in rest
    assert "Traceback" not in rest
    assert (tmp_path / "bank.db").exists()
    assert not (tmp_path / "bank.db-wal").exists()  # the pool was closed, and SQLite tidied up
