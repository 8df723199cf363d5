"""One incident, from its beginning to its end: the example service loses an index, the statement of an endpoint reads a
whole table from then on, and callers queue for connections."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from dashboards.render.board import board_files, expand, queries, read, variables
from examples.fastapi_service.database import SCHEMA, make_tables
from examples.stack_local.programs import Program, service

from ..support.debian import ask, has_number, queried, wait_for
from ..support.otlp import attributes
from .conftest import ROOT, TIME_SCALE, Stack, unmeasured

pytestmark = pytest.mark.timeout(600)
WITHIN = 120.0

ALERT, POOL_NAME = "AiosqlitepoolSlowStatements", "shop.db/read"
ENDPOINT = "/users/1/posts"
STATEMENT = "SELECT * FROM post WHERE user_id = ? ORDER BY id DESC LIMIT ?"
SUMMARY, WARNING = "SELECT post", "full scan of post"
PLAN = "aiosqlitepool.statement.plan"
POOL = f'db_client_connection_pool_name="{POOL_NAME}"'
# Of the pool, the statement that reads the whole table: on a busy machine, others are slow by chance, and so is this
# one while it has its index.
CAUSE = f'{POOL}, db_query_summary="{SUMMARY}", aiosqlitepool_statement_plan_warning="{WARNING}"'
SLOW = f"aiosqlitepool_statement_slow_total{{{CAUSE}}}"
FIRING = f'ALERTS{{alertname="{ALERT}", alertstate="firing", {CAUSE}}}'

# More than there are connections, so that some queue.
CALLERS = 12
# Seconds of processor time that a scan of the table takes, at least: more than the default of `slow_statement`.
SCAN = 0.15
# Seconds for which the alert looks back.
WINDOW = 300 * TIME_SCALE


class Incident(NamedTuple):
    """The service, its database, and when the index was lost."""

    program: Program
    database: Path
    began: float


@pytest.fixture(scope="module")
def incident(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Incident]:
    folder = tmp_path_factory.mktemp("incident")
    database = folder / "shop.db"
    fill(database)
    environment = {
        **unmeasured(),
        "OTEL_EXPORTER_OTLP_ENDPOINT": stack.receiver.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "DEBUG_PAGE": "yes",
    }
    with service(database, folder / "service.log", environment) as program:
        stack.scrape(program.url)
        with calling(program.url):
            known = f"db_client_connection_max{{{POOL}}}"
            wait_for("Prometheus scrapes the pool", lambda: queried(stack.prometheus, known), within=WITHIN)
            began = time.time()
            execute(database, "DROP INDEX post_by_user")
            full = (
                f"instance_pool:db_client_connection_utilization:ratio{{{POOL}}} >= 1 "
                f"and instance_pool:db_client_connection_pending_requests:sum{{{POOL}}} > 0"
            )
            wait_for("the pool is full, and callers queue", lambda: queried(stack.prometheus, full), within=WITHIN)
            yield Incident(program, database, began)


def fill(database: Path) -> None:
    """Make the tables of the service, with so many posts that it takes long to look at them all, on any machine."""
    with closing(sqlite3.connect(database)) as connection:
        make_tables(connection)
        connection.execute("INSERT INTO user (id, name) VALUES (1, 'Ada'), (2, 'Grace')")
        rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500000) SELECT 2, 'Hello' FROM n"
        while seconds(connection, STATEMENT.replace("user_id", "+user_id"), (1, 50)) < SCAN:
            connection.execute(f"INSERT INTO post (user_id, text) {rows}")
        connection.commit()


def seconds(connection: sqlite3.Connection, statement: str, parameters: tuple[int, ...]) -> float:
    began = time.thread_time()  # which does not depend on what else runs
    connection.execute(statement, parameters).fetchall()
    return time.thread_time() - began


def execute(database: Path, statement: str) -> None:
    """As another process would."""
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        connection.execute(statement)
        connection.commit()


@contextmanager
def calling(url: str) -> Iterator[None]:
    """Callers who ask for the posts of a user, again and again, until the block ends."""
    over = threading.Event()

    def call() -> None:
        with httpx.Client(base_url=url, timeout=60) as http:
            while not over.wait(0.01):
                http.get(ENDPOINT)

    with ThreadPoolExecutor(CALLERS) as callers:
        calls = [callers.submit(call) for _ in range(CALLERS)]
        try:
            yield
        finally:
            over.set()
    for each in calls:
        each.result()


def samples(prometheus: str, selector: str) -> list[tuple[float, float]]:
    """Every sample of the last ten minutes, and when it was taken: in the order of time."""
    found = queried(prometheus, f"{selector}[10m]")
    return sorted((at, float(value)) for series in found for at, value in series["values"])


# -- what the engineer on call is told


def test_the_alert_names_the_statement_and_its_full_scan(stack: Stack, incident: Incident) -> None:
    def told() -> list[dict[str, Any]]:
        alerts = ask(f"{stack.alertmanager}/api/v2/alerts", filter=f'alertname="{ALERT}"')
        named = {"db_client_connection_pool_name": POOL_NAME, "aiosqlitepool_statement_plan_warning": WARNING}
        return [alert for alert in alerts if named.items() <= alert["labels"].items()]

    (alert,) = wait_for(f"Alertmanager is told of a {WARNING}", told, within=WITHIN)
    assert alert["labels"]["db_query_summary"] == SUMMARY
    assert f"{SUMMARY} of pool {POOL_NAME}" in alert["annotations"]["description"]
    assert WARNING in alert["annotations"]["description"]


def test_the_alert_fires_once_a_scrape_could_tell(stack: Stack, incident: Incident) -> None:
    def told() -> list[float]:
        found = samples(stack.prometheus, SLOW)
        before = [max((older for then, older in found if then <= at - WINDOW), default=0.0) for at, _ in found]
        return [at for (at, slow), older in zip(found, before, strict=True) if slow - older > 10]

    fired, _ = wait_for("the alert fires", lambda: samples(stack.prometheus, FIRING), within=WITHIN)[0]
    could_tell = wait_for("a scrape with more than ten", told, within=WITHIN)[0]
    # How soon depends on how busy the machine is: an interval for the scrape and one for the evaluation.
    print(f"fired {fired - incident.began:.1f} s after the index was lost, {fired - could_tell:.1f} s after the scrape")
    assert fired >= could_tell


# -- where the engineer looks next


def test_the_board_has_the_statement_at_the_top(stack: Stack, incident: Incident) -> None:
    (board,) = [file for file in board_files() if file.stem == "pool"]
    (query,) = [query for query in queries(read(board)) if query.panel == "Time by statement"]
    expression = expand(query.expr, variables(rate_interval=60, interval=1, span=60, pool=POOL_NAME))

    def top() -> bool:
        found = sorted(queried(stack.prometheus, expression), key=lambda series: -float(series["value"][1]))
        return has_number(found) and found[0]["metric"] == {"db_query_summary": SUMMARY}

    wait_for(f"{SUMMARY} is at the top of {expression}", top, within=WITHIN)


def test_the_trace_of_a_slow_request_has_the_statement_and_its_plan(stack: Stack, incident: Incident) -> None:
    def spans() -> list[Any]:
        named = [span for span in tuple(stack.receiver.spans) if span.name == SUMMARY]
        return [span for span in named if f"SCAN post  <-- {WARNING}" in str(attributes(span).get(PLAN))]

    span, *_ = wait_for("the span of a slow statement arrives", spans, within=WITHIN)
    found = attributes(span)
    assert (found["db.client.connection.pool.name"], found["db.query.text"]) == (POOL_NAME, STATEMENT)

    def requests() -> set[str]:
        return {each.name for each in tuple(stack.receiver.spans) if each.span_id == span.parent_span_id}

    assert wait_for("the span of its request arrives", requests, within=WITHIN) == {"GET /users/{user_id}/posts"}


def test_a_log_record_has_the_statement_and_its_plan(incident: Incident) -> None:
    def records() -> list[str]:
        lines = incident.program.log.read_text().splitlines()
        return [line for line in lines if "pool.statement.slow" in line and WARNING in line]

    record, *_ = wait_for("a record", records, within=WITHIN)
    for told in (POOL_NAME, STATEMENT):
        assert told in record


def test_top_shows_the_statement_in_a_terminal(incident: Incident) -> None:
    command = [sys.executable, "-m", "aiosqlitepool", "top", f"{incident.program.url}/debug/pool/"]

    def shown() -> str:
        ran = subprocess.run(
            [*command, "--statements", "--once"],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (ran.returncode, ran.stderr) == (0, "")
        return ran.stdout if WARNING in ran.stdout else ""  # not before a slow one has ended

    assert "SELECT * FROM post" in wait_for("the warning", shown, within=WITHIN)  # of a long one, the beginning


# -- and what ends it


def test_with_the_index_that_the_plan_asks_for_no_request_is_slow_any_more(incident: Incident) -> None:
    (index,) = [statement for statement in SCHEMA if "post_by_user" in statement]
    execute(incident.database, index)

    with httpx.Client(base_url=incident.program.url, timeout=60) as http:

        def slow() -> list[str]:
            lines = http.get("/metrics").text.splitlines()
            return sorted(line for line in lines if "statement_slow_total{" in line and SUMMARY in line)

        def quick() -> bool:
            before = slow()
            assert all(http.get(ENDPOINT).json() == [] for _ in range(50))
            return slow() == before

        wait_for("fifty requests without a slow one", quick, within=WITHIN)
