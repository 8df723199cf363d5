"""One leak, followed from the page: an endpoint of the README's web service keeps a reader now and then. The alert is
told before the first caller fails, and each source that the runbook names has the endpoint and the statement."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest

from dashboards.render.board import board_files, expand, queries, read, variables
from examples.stack_local.programs import Program, free_port, running

from ..support.debian import ask, installed, queried, wait_for
from ..support.otlp import Receiver, attributes, over_http
from .conftest import POOL, ROOT, Pager, paging, unmeasured, watching
from .leaking import LEAKING, STATEMENT

pytestmark = pytest.mark.timeout(300)
WITHIN = 120.0

# A minute is twelve seconds, for the service as for the rules: a timeout of 5 s is one of 1 s.
TIME_SCALE = 0.2
# Seconds between two leaks, of which the fourth takes the last reader: the first caller fails after 185 seconds of real
# time, and the pager is told after 105 at the latest.
LEAKS_EVERY = 60 * TIME_SCALE
READERS, CALLERS = 4, 3

ALERT, POOL_NAME = "AiosqlitepoolConnectionHeldTooLong", "service.db/read"
ENDPOINT, SUMMARY = f"GET {LEAKING}", "SELECT users"


class Leak(NamedTuple):
    """The leaking service, what watches it, and when its first caller failed, in seconds since the epoch."""

    service: Program
    prometheus: str
    pager: Pager
    receiver: Receiver
    failed_at: float


@pytest.fixture(scope="module")
def leak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Leak]:
    installed("prometheus", "prometheus-alertmanager")
    folder = tmp_path_factory.mktemp("leak")
    with ExitStack() as programs:
        start = programs.enter_context
        receiver, (pager, pager_url) = start(over_http()), start(paging())
        service = start(leaking(folder, receiver.endpoint))
        server, _ = start(watching(folder, pager_url, service.url, time_scale=TIME_SCALE))
        known = f'db_client_connection_max{{{POOL}="{POOL_NAME}"}}'
        wait_for("Prometheus scrapes the pool", lambda: queried(server.url, known), within=WITHIN)
        began = time.time()
        failures = start(calling(service.url))
        for number in range(READERS):
            time.sleep(LEAKS_EVERY if number else 0)
            start(never_answered(service.url))
        failed_at = wait_for("a caller fails", lambda: min(failures, default=0.0), within=WITHIN)
        told = pager.told.get((ALERT, POOL_NAME), float("nan"))
        print(f"after the first leak: told after {told - began:.1f} s, a caller failed after {failed_at - began:.1f} s")
        yield Leak(service, server.url, pager, receiver, failed_at)


@contextmanager
def leaking(folder: Path, endpoint: str) -> Iterator[Program]:
    """The service, with its log records and its debug page, and traces for the receiver."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "tests.stack.leaking:app", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--no-access-log", "--timeout-graceful-shutdown", "1"]
    environment = {
        **unmeasured(),
        "TIME_SCALE": str(TIME_SCALE),
        "DATABASE": str(folder / "service.db"),
        "LOG_FILE": str(folder / "records"),
        "DEBUG_PAGE": "yes",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "500",
    }
    with running(
        "The leaking service", command, folder / "service.log",
        port=port, ready="/users", env=environment, cwd=ROOT,
    ) as program:  # fmt: skip
        yield program


@contextmanager
def calling(url: str) -> Iterator[list[float]]:
    """Callers who list the users again and again, until the block ends: when each that failed did."""
    over, failures = threading.Event(), list[float]()

    def call() -> None:
        with httpx.Client(base_url=url, timeout=60) as http:
            while not over.wait(0.1):
                if http.get("/users").status_code != 200:
                    failures.append(time.time())

    callers = [threading.Thread(target=call) for _ in range(CALLERS)]
    for each in callers:
        each.start()
    try:
        yield failures
    finally:
        over.set()
        for each in callers:
            each.join()


@contextmanager
def never_answered(url: str) -> Iterator[None]:
    """A request to the endpoint that leaks."""
    address = urlsplit(url)
    with closing(socket.create_connection((address.hostname, address.port))) as connection:
        path = LEAKING.format(name="Ada")
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
        yield


# -- what the engineer on call is told


def test_the_first_alert_is_told_before_the_first_caller_fails(leak: Leak) -> None:
    of_pool = {alert: at for (alert, pool), at in leak.pager.told.items() if pool == POOL_NAME}
    assert min(of_pool, key=lambda alert: of_pool[alert]) == ALERT
    assert of_pool[ALERT] < leak.failed_at


@pytest.mark.parametrize(
    "source", ["Pool, *Leaks by label*", "`pool.checkout.leak_suspected`", "`aiosqlitepool.leak`", "debug page"]
)
def test_its_section_of_the_runbook_names_where_the_others_look(leak: Leak, source: str) -> None:
    file, _, heading = leak.pager.firing[ALERT, POOL_NAME]["annotations"]["runbook_url"].partition("#")
    sections = re.split(r"^## ", (ROOT / "metrics" / file).read_text(), flags=re.MULTILINE)
    (section,) = [section for section in sections if section.partition("\n")[0].lower() == heading]
    assert source in " ".join(section.split())


# -- where the engineer looks next: each has the endpoint and the statement


def test_the_board_has_them(leak: Leak) -> None:
    (board,) = [file for file in board_files() if file.stem == "pool"]
    pool = variables(rate_interval=60, interval=1, span=60, pool=POOL_NAME)
    shown = [
        series["metric"]
        for query in queries(read(board))
        if query.panel == "Leaks by label"
        for series in queried(leak.prometheus, expand(query.expr, pool))
    ]
    assert {"aiosqlitepool_acquire_label": ENDPOINT, "db_query_summary": SUMMARY} in shown


def test_a_log_record_has_them(leak: Leak) -> None:
    records = [json.loads(line) for line in (leak.service.log.parent / "records").read_text().splitlines()]
    suspected = [record for record in records if record["event"] == "pool.checkout.leak_suspected"]
    assert len(suspected) in range(1, READERS + 1)
    for record in suspected:
        (holder,) = record["holders"]
        assert (record["pool"], holder["label"], holder["statement"]) == (POOL_NAME, ENDPOINT, STATEMENT)


def test_the_trace_of_the_request_that_leaks_has_them_although_it_has_not_ended(leak: Leak) -> None:
    def spans() -> list[Any]:
        return [span for span in tuple(leak.receiver.spans) if span.name == "aiosqlitepool.leak"]

    span, *_ = wait_for("the span of a leak arrives", spans, within=WITHIN)
    found = attributes(span)
    assert (found["aiosqlitepool.acquire.label"], found["db.query.text"]) == (ENDPOINT, STATEMENT)
    assert span.parent_span_id


def test_the_trace_of_a_caller_that_failed_is_linked_to_it(leak: Leak) -> None:
    def links() -> list[dict[str, Any]]:
        acquires = [span for span in tuple(leak.receiver.spans) if span.name == "aiosqlitepool.acquire"]
        failed = [span for span in acquires if attributes(span).get("error.type") == "timeout"]
        return [attributes(link) for span in failed for link in span.links]

    holders = wait_for("the span of a timeout arrives", links, within=WITHIN)
    found = {(each["aiosqlitepool.acquire.label"], each["db.query.text"]) for each in holders}
    assert found == {(ENDPOINT, STATEMENT)}


def test_the_data_of_the_debug_page_have_them(leak: Leak) -> None:
    (pool,) = [pool for pool in ask(f"{leak.service.url}/debug/pool/data.json")["pools"] if pool["pool"] == POOL_NAME]
    holders = [(holder["label"], holder["statement"]) for holder in pool["holders"]]
    assert holders == [(ENDPOINT, STATEMENT)] * READERS
