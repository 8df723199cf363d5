"""The example service in several processes, with real servers: every scrape counts every acquire of every worker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from examples.stack_local.programs import free_port

from ..support.debian import wait_for

ROOT = Path(__file__).parents[2]
REQUESTS = 120
GUNICORN = ["-m", "gunicorn", "--worker-class", "asgi", "--workers", "2", "--chdir", str(ROOT / "examples")]
SERVERS = {
    "uvicorn": ["-m", "uvicorn", "fastapi_service.app:app", "--app-dir", str(ROOT / "examples"), "--workers", "2"],
    "gunicorn": [*GUNICORN, "fastapi_service.app:app"],
    "gunicorn --preload": [*GUNICORN, "--preload", "fastapi_service.app:app"],
}
ACQUIRES = r'^aiosqlitepool_acquires_total\{[^}]*pool_name="service\.db/read"[^}]*\} (\S+)$'


@contextmanager
def served(server: str, folder: Path, **environment: str) -> Iterator[tuple[httpx.Client, Path]]:
    """Run the example service; gives a client that opens a connection for each request, and the server's log."""
    port, log = free_port(), folder / "log"
    address = ["--port", str(port)] if server == "uvicorn" else ["--bind", f"127.0.0.1:{port}"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *SERVERS[server], *address],
            env={**os.environ, "PYTHONPATH": path, "DATABASE": str(folder / "service.db"), **environment},
            cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    limits = httpx.Limits(max_keepalive_connections=0)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, limits=limits, trust_env=False) as http:
            wait_for(f"{server} to serve: {log.read_text()}", lambda: answers(http, process), within=50)
            yield http, log
    finally:
        process.terminate()
        process.wait(60)  # gunicorn waits for 30 s itself for a connection that is kept alive


def answers(http: httpx.Client, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the server has ended"
    try:
        return http.get("/docs").status_code == 200
    except httpx.TransportError:
        return False


def acquires(http: httpx.Client) -> float:
    return sum(map(float, re.findall(ACQUIRES, http.get("/metrics").text, re.MULTILINE)))


@pytest.mark.timeout(150)
@pytest.mark.parametrize("server", SERVERS)
def test_every_scrape_counts_the_acquires_of_all_workers(server: str, tmp_path: Path) -> None:
    files = tmp_path / "metrics"
    files.mkdir()
    with served(server, tmp_path, PROMETHEUS_MULTIPROC_DIR=str(files)) as (http, log):
        for _ in range(REQUESTS):
            assert http.get("/users").status_code == 200
        # Batches are written once a second.
        wait_for("all acquires", lambda: acquires(http) >= REQUESTS, within=30)
        time.sleep(1.5)  # what would be counted twice is there by now
        assert {acquires(http) for _ in range(10)} == {REQUESTS}
        # Both workers have read: each has a file of its own, and so may the process that started them.
        assert len(list(files.glob("histogram_*.db"))) >= 2
        assert "MultiProcessCollector" not in log.read_text()


@pytest.mark.timeout(150)
@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
def test_without_a_directory_each_worker_says_that_a_scrape_sees_one_process(server: str, tmp_path: Path) -> None:
    with served(server, tmp_path, PYTHONUNBUFFERED="1") as (http, log):
        assert http.get("/users").status_code == 200
        wait_for(
            "both warnings",
            lambda: log.read_text().count("2 worker processes, and PROMETHEUS_MULTIPROC_DIR"),
            within=30,
        )
