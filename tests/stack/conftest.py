"""The whole stack, for real: the example service under load and two programs full of troubles, watched by Prometheus
with the shipped rules, in fast motion, which tells Alertmanager, which tells a pager."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiosqlitepool.cli.export import export
from examples.stack_local.programs import Program, alertmanager, free_port, load, prometheus, running, service

from ..support.debian import ask, installed
from ..support.otlp import Receiver, over_http
from .troubles import SUBSCRIBERS, TROUBLES, pool_name

# Five minutes are fifteen seconds. Faster, and a scrape that comes late on a busy machine would matter.
TIME_SCALE = 0.05
ROOT = Path(__file__).parents[2]
POOL = "db_client_connection_pool_name"

Alert = tuple[str, str]  # its name, and its pool's

# Every alert, raised by the pool that has its trouble.
EXPECTED: dict[Alert, tuple[str, str]] = {
    (alert, pool_name(alert, subscriber)): (subscriber, alert) for subscriber in SUBSCRIBERS for alert in TROUBLES
}


def silenced_by(alert: Alert) -> Alert | None:
    """What must not reach the pager because this does: a stuck waiter, or the writer's queue, before a full pool; a
    full disk before transactions that fail."""
    name, pool = alert
    graver = ("AiosqlitepoolWaiterStuck", "AiosqlitepoolWriterQueueSlow")
    if name == "AiosqlitepoolDatabaseBroken":
        return ("AiosqlitepoolTransactionsFailing", pool)
    return ("AiosqlitepoolSaturated", pool) if name in graver else None


class Pager:
    """A webhook that Alertmanager notifies: which alerts it was told of as firing, and which as resolved."""

    def __init__(self) -> None:
        self.firing: dict[Alert, dict[str, Any]] = {}
        self.resolved: dict[Alert, dict[str, Any]] = {}
        # When it was first told of each, in seconds since the epoch.
        self.told: dict[Alert, float] = {}

    def take(self, notification: dict[str, Any]) -> None:
        for alert in notification["alerts"]:
            found = self.firing if alert["status"] == "firing" else self.resolved
            key = (alert["labels"]["alertname"], alert["labels"].get(POOL, ""))
            found[key] = alert
            self.told.setdefault(key, time.time())


class Stack:
    """The running stack, seen from outside."""

    def __init__(
        self, prometheus: str, alertmanager: str, pager: Pager, receiver: Receiver, folder: Path, *programs: Program
    ) -> None:
        self.prometheus = prometheus
        self.alertmanager = alertmanager
        self.pager = pager
        self.receiver = receiver
        self.reached: set[Alert] = set()
        # What Alertmanager kept from the pager, because something graver was told.
        self.inhibited: set[Alert] = set()
        self._folder = folder
        self._programs = programs

    def scrape(self, url: str, job: str | None = None) -> None:
        """Have Prometheus scrape one program more, of the same service or of the service `job`."""
        file = self._folder / "metrics" / "targets" / "app.yml"
        groups = yaml.safe_load(file.read_text())
        if job is None:
            groups[0]["targets"].append(url.removeprefix("http://"))
        else:
            groups.append({"targets": [url.removeprefix("http://")], "labels": {"job": job}})
        file.write_text(yaml.safe_dump(groups))

    def look(self) -> set[Alert]:
        """The alerts that Alertmanager has now. Troubles that have told all that they are to tell are relieved.

        Raises `ProgramEndedError` if a program has ended: nothing would be told any more, and each test wait in vain.
        """
        for program in self._programs:
            program.check()
        now = set()
        for alert in ask(f"{self.alertmanager}/api/v2/alerts"):
            key = (alert["labels"]["alertname"], alert["labels"].get(POOL, ""))
            now.add(key)
            if alert["status"]["inhibitedBy"]:
                self.inhibited.add(key)
        self.reached |= now
        for alert, trouble in EXPECTED.items():
            told = alert in self.reached & self.pager.firing.keys()
            if told and silenced_by(alert) in self.inhibited | {None}:
                self._folder.joinpath(*trouble).touch()
        return now


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    installed("prometheus", "prometheus-alertmanager")
    folder = tmp_path_factory.mktemp("stack")
    with ExitStack() as running_programs:
        start = running_programs.enter_context
        receiver, (pager, pager_url) = start(over_http()), start(paging())
        environment = {
            **unmeasured(),
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "500",
        }
        app = start(service(folder / "service.db", folder / "service.log", environment))
        start(load(app, folder / "load.log"))
        programs = [app, *(start(troubles(folder, subscriber)) for subscriber in SUBSCRIBERS)]
        server, manager = start(watching(folder, pager_url, *(program.url for program in programs)))
        yield Stack(server.url, manager.url, pager, receiver, folder, *programs)


@contextmanager
def troubles(folder: Path, subscriber: str) -> Iterator[Program]:
    port, own = free_port(), folder / subscriber
    own.mkdir()
    command = [*mount_namespace(), sys.executable, "-m", "tests.stack.troubles", str(own), str(port), subscriber]
    name = f"Troubles by {subscriber}"
    with running(name, command, own / "log", port=port, ready="/metrics", env=unmeasured(), cwd=ROOT) as program:
        yield program


def mount_namespace() -> list[str]:
    """What runs a program in a mount namespace of its own; nothing where that is not allowed, as in most containers."""
    command = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    try:
        is_allowed = subprocess.run([*command, "true"], capture_output=True, check=False, timeout=60).returncode == 0
    except FileNotFoundError:
        is_allowed = False
    return command if is_allowed else []


def unmeasured() -> dict[str, str]:
    """The environment of a program that is not to measure coverage: it would answer a scrape too late, which Prometheus
    takes for a program that is down."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


@contextmanager
def watching(
    folder: Path, pager_url: str, *urls: str, time_scale: float = TIME_SCALE
) -> Iterator[tuple[Program, Program]]:
    """Prometheus, which scrapes these programs, and Alertmanager, which tells the pager."""
    metrics = configured(folder, pager_url, time_scale)
    with alertmanager(metrics / "alertmanager.yml", folder) as manager:
        address(metrics / "targets" / "app.yml", *urls)
        address(metrics / "targets" / "alertmanager.yml", manager.url)
        with prometheus(metrics / "prometheus.yml", folder) as server:
            yield server, manager


def configured(folder: Path, pager_url: str, time_scale: float) -> Path:
    """The shipped files in fast motion, with the pager for every receiver."""
    export(folder, time_scale=time_scale)
    metrics = folder / "metrics"
    config = yaml.safe_load((metrics / "alertmanager.yml").read_text())
    for receiver in config["receivers"]:
        receiver["webhook_configs"] = [{"url": pager_url, "send_resolved": True}]
    (metrics / "alertmanager.yml").write_text(yaml.safe_dump(config))
    return metrics


def address(file: Path, *urls: str) -> None:
    file.write_text(yaml.safe_dump([{"targets": [url.removeprefix("http://") for url in urls]}]))


@contextmanager
def paging() -> Iterator[tuple[Pager, str]]:
    pager = Pager()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            pager.take(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield pager, f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
