"""What the README and the pages show beside programs: services, with requests; tests; an error; configuration."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi.testclient import TestClient

from aiosqlitepool.events import ConnectionAcquired
from aiosqlitepool.stats import Holder
from aiosqlitepool.testing import Recorder

from .support.documents import DOCUMENTS, ROOT, programs_in, text_of

README, FASTAPI = Path("README.md"), Path("docs/fastapi.md")
SERVICES = [program for page in (README, FASTAPI) for program, _ in programs_in(page) if "FastAPI(lifespan" in program]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def service_with(word: str, page: Path = FASTAPI) -> Any:
    """The app of the program of a page that has this word."""
    (program,) = [each for each, _ in programs_in(page) if word in each]
    module: dict[str, Any] = {"__name__": "service"}
    exec(program, module)
    return module["app"]


@pytest.fixture
def client_of() -> Iterator[Callable[[Any], TestClient]]:
    clients: list[TestClient] = []

    def start(app: Any) -> TestClient:
        clients.append(TestClient(app))
        return clients[-1].__enter__()

    yield start
    for client in clients:
        client.__exit__()


ClientOf = Callable[[Any], TestClient]


def test_every_service_is_tested_here() -> None:
    assert len(SERVICES) == 1 + 7


@pytest.mark.parametrize("page", [README, FASTAPI], ids=str)
def test_the_programs_and_services_of_a_page_run_in_one_folder(page: Path) -> None:
    for program, printed in programs_in(page):
        if printed:
            subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=True)
        elif "FastAPI(lifespan" in program:
            module: dict[str, Any] = {"__name__": "service"}
            exec(program, module)
            with TestClient(module["app"]) as client:
                assert client.get("/openapi.json").status_code == 200


@pytest.mark.parametrize("page", [README, FASTAPI], ids=str)
def test_a_user_that_was_added_is_listed(page: Path, client_of: ClientOf) -> None:
    client = client_of(service_with('@app.get("/users")', page))
    assert client.post("/users/Ada").json() == {"id": 1, "name": "Ada"}
    assert client.get("/users").json() == ["Ada"]


@asynccontextmanager
async def started(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="https://service.test") as client:
            yield client


@pytest.mark.parametrize("page", [README, FASTAPI], ids=str)
async def test_when_the_database_is_full_the_answer_is_503_and_the_log_has_the_reason(
    page: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = service_with('@app.get("/users")', page)
    async with started(app) as client:
        writer = app.state.db.writer
        async with app.state.db.write():
            waiting = [asyncio.create_task(client.post(f"/users/{number}")) for number in range(200)]
            while writer.stats().waiting < 200:
                await asyncio.sleep(0)
            # In a task of its own: in the task of the block it would be a savepoint.
            refused = await asyncio.create_task(client.post("/users/one-too-many"))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert {response.status_code for response in await asyncio.gather(*waiting)} == {201}
    assert "is full: max_waiting=200" in caplog.text


async def test_an_endpoint_that_takes_too_long_is_ended_and_leaves_nothing_behind() -> None:
    app = service_with("too_slow")
    async with started(app) as client:
        assert (await client.post("/jobs/short")).status_code == 200
        app.state.limit = 0.05
        assert (await client.post("/jobs/long", params={"seconds": 60})).status_code == 504
        assert (await client.get("/jobs")).json() == 1


def test_the_tests_that_the_readme_shows_pass(tmp_path: Path) -> None:
    (service,) = [program for program, _ in programs_in(README) if "FastAPI(lifespan" in program]
    (tests,) = re.findall(r"```python \{test_service.py\}\n(.*?)```", text_of(README), re.DOTALL)
    (tmp_path / "service.py").write_text(service)
    (tmp_path / "test_service.py").write_text(tests)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error::ResourceWarning"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "2 passed" in ran.stdout, ran.stdout
    assert not (tmp_path / "service.db").exists()


def test_a_session_is_looked_up_on_the_connection_of_its_endpoint(client_of: ClientOf) -> None:
    app, recorder = service_with("current_user"), Recorder()
    client = client_of(app)
    app.state.db.subscribe(recorder)
    assert client.get("/me", headers={"token": "t"}).json() == "Ada"
    assert len(recorder.of(ConnectionAcquired)) == 1
    assert client.get("/me", headers={"token": "stolen"}).status_code == 401


def test_the_readme_shows_a_timeout_as_it_is() -> None:
    (shown,) = re.findall(r"```\n(no connection .*?)```", text_of(README), re.DOTALL)
    nightly = Holder(
        2, "Task-2", "nightly report", 61.402, statement="SELECT * FROM orders ORDER BY total",
        statement_time=61.4, statement_runs=True,
    )  # fmt: skip
    assert f"{nightly}; {Holder(1, 'Task-3', 'GET /export', 8.213)}." in " ".join(shown.split())


def test_the_metrics_of_several_workers_add_up(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", text_of(Path("docs/deployment.md")), re.DOTALL)[0]
    (tmp_path / "service.py").write_text(code)
    (tmp_path / "several").mkdir()
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "several")}
    worker = "import prometheus_client; prometheus_client.Counter('served', 'Requests.').inc()"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", worker], env=env, timeout=60, check=True)
    show = [sys.executable, "-c", "import service; print(service.metrics().body.decode())"]
    ran = subprocess.run(show, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert "served_total 2.0" in ran.stdout


async def test_a_streamed_answer_holds_no_connection_between_its_pages() -> None:
    app = service_with("StreamingResponse")
    async with started(app) as client:
        assert (await client.get("/export")).text == "pen\nink\n"
        lines = app.routes[-1].endpoint.__globals__["lines"](app.state.db)
        assert await anext(lines) == "pen\n"
        assert app.state.db.readers.stats().used == 0
        await lines.aclose()


def test_a_background_task_writes_after_the_answer(client_of: ClientOf) -> None:
    client = client_of(service_with("BackgroundTasks"))
    assert client.post("/mail/ada@example.org").status_code == 202
    assert client.get("/mail").json() == 1


def test_a_websocket_acquires_for_each_message(client_of: ClientOf) -> None:
    app = service_with("WebSocket")
    with client_of(app).websocket_connect("/chat") as socket:
        for number in (1, 2):
            socket.send_text("Hello")
            assert socket.receive_json() == number
        assert app.state.db.writer.stats().used == 0


def test_a_pool_serves_in_the_same_way(client_of: ClientOf) -> None:
    client = client_of(service_with('@app.get("/version")'))
    assert re.fullmatch(r"3\.\d+\.\d+", client.get("/version").json()["sqlite"])


CONFIGURED = [page for page in DOCUMENTS if "```yaml" in text_of(page)]


@pytest.mark.parametrize("page", CONFIGURED, ids=str)
def test_configuration_is_valid_yaml(page: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", text_of(page), re.DOTALL)
    assert all(isinstance(yaml.safe_load(block), dict) for block in blocks)


@pytest.mark.parametrize(("path", "status"), [("/live", 200), ("/ready", 200)])
def test_a_probe_answers(path: str, status: int, client_of: ClientOf) -> None:
    client = client_of(service_with('@app.get("/ready")', Path("docs/kubernetes.md")))
    assert client.get(path).status_code == status


async def test_a_service_whose_readers_are_all_in_use_is_not_ready() -> None:
    app = service_with('@app.get("/ready")', Path("docs/kubernetes.md"))
    async with started(app) as client, AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(app.state.db.read())
        ready = await asyncio.create_task(client.get("/ready"))
    assert ready.status_code == 503
