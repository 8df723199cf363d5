"""The example service over real HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from examples.stack_local.programs import Program, service

from ..support.debian import wait_for
from ..support.otlp import Receiver

POOL = 'db_client_connection_pool_name="service.db/write"'


def metric(http: httpx.Client, sample: str) -> float:
    """The value of one sample of `/metrics`, spelled as it is there."""
    (value,) = [line.split()[-1] for line in http.get("/metrics").text.splitlines() if line.startswith(sample + " ")]
    return float(value)


def user(http: httpx.Client, name: str) -> int:
    answer = http.post("/users", json={"name": name})
    assert answer.status_code == 201
    return int(answer.json()["id"])


# -- users and posts


def test_a_user_that_was_added_is_there(http: httpx.Client) -> None:
    ada = user(http, "Ada")
    assert http.get(f"/users/{ada}").json() == {"id": ada, "name": "Ada", "posts": 0}
    assert http.get("/users").json()[0] == {"id": ada, "name": "Ada", "posts": 0}


def test_a_post_is_counted_with_its_user(http: httpx.Client) -> None:
    grace = user(http, "Grace")
    post = http.post("/posts", json={"user_id": grace, "text": "Hello"})
    assert post.status_code == 201
    assert http.get(f"/posts/{post.json()['id']}").json() == post.json()
    assert http.get(f"/users/{grace}/posts").json() == [post.json()]
    assert http.get(f"/users/{grace}").json()["posts"] == 1


@pytest.mark.parametrize("path", ["/users/999999", "/posts/999999"])
def test_what_is_not_there_is_not_found(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 404
    assert "999999" in answer.json()["detail"]


def test_a_second_user_of_the_same_name_is_a_conflict(http: httpx.Client) -> None:
    user(http, "Alan")
    answer = http.post("/users", json={"name": "Alan"})
    assert (answer.status_code, answer.json()) == (409, {"detail": "there is a user 'Alan' already"})


def test_an_empty_name_is_refused(http: httpx.Client) -> None:
    assert http.post("/users", json={"name": ""}).status_code == 422


def test_a_limit_that_would_mean_all_is_refused(http: httpx.Client) -> None:
    assert http.get("/users", params={"limit": -1}).status_code == 422


def test_a_failure_half_way_is_rolled_back(http: httpx.Client, database: Path) -> None:
    outcome = 'aiosqlitepool_transaction_outcome="rolled_back"'
    sample = f"aiosqlitepool_transaction_duration_seconds_count{{{outcome},{POOL}}}"
    before = metric(http, sample)
    assert http.post("/posts", json={"user_id": -1, "text": "into the void"}).status_code == 404
    wait_for("the rollback is counted", lambda: metric(http, sample) == before + 1, within=30)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM post WHERE user_id = -1").fetchone() == (0,)


def test_it_is_healthy(http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "ok"}


def test_its_documentation_lists_the_service_and_not_its_plumbing(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/users", "/users/{user_id}", "/users/{user_id}/posts", "/posts", "/posts/{post_id}"}


# -- what it tells


def test_metrics_are_served_without_a_redirect_and_in_openmetrics_if_asked(http: httpx.Client) -> None:
    plain = http.get("/metrics")
    assert (plain.status_code, plain.headers["content-type"].partition(";")[0]) == (200, "text/plain")
    asked = http.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert asked.headers["content-type"].startswith("application/openmetrics-text")
    assert asked.text.endswith("# EOF\n")


async def crowd(url: str) -> None:
    """More requests at once than there are connections."""
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=httpx.Limits(max_connections=None)) as client:
        answers = await asyncio.gather(*(client.get("/users") for _ in range(60)))
    assert {answer.status_code for answer in answers} == {200}


def test_a_request_that_waited_leads_to_its_trace(program: Program, http: httpx.Client, receiver: Receiver) -> None:
    def exemplars() -> set[str]:
        asyncio.run(crowd(program.url))
        lines = http.get("/metrics", headers={"Accept": "application/openmetrics-text"}).text.splitlines()
        return {line.partition('trace_id="')[2].partition('"')[0] for line in lines if "trace_id=" in line}

    waited = wait_for("somebody waits, and is traced", exemplars, within=60)
    wait_for(
        "the request's span arrives",
        lambda: any(span.trace_id.hex() in waited and span.name == "GET /users" for span in tuple(receiver.spans)),
        within=30,
    )


def test_scrapes_and_health_checks_are_not_traced(http: httpx.Client, receiver: Receiver) -> None:
    http.get("/metrics")
    http.get("/health")
    marker = http.get("/users/4711", headers={"traceparent": f"00-{4711:032x}-{4711:016x}-01"})
    assert marker.status_code == 404

    def names() -> set[str]:
        spans = tuple(receiver.spans)
        return {span.name for span in spans} if any(span.trace_id.hex() == f"{4711:032x}" for span in spans) else set()

    assert wait_for("a later request's span arrives", names, within=30) & {"GET /metrics", "GET /health"} == set()


# -- its life


def test_what_was_committed_is_there_after_a_restart(tmp_path: Path) -> None:
    for expected in ([], ["Edsger"]):
        with (
            service(tmp_path / "app.db", tmp_path / "service.log", os.environ) as program,
            httpx.Client(base_url=program.url, timeout=30) as http,
        ):
            assert [each["name"] for each in http.get("/users").json()] == expected
            http.post("/users", json={"name": "Edsger"})
    assert not (tmp_path / "app.db-wal").exists()  # the pool was closed, and SQLite tidied up


def test_without_the_environment_nothing_is_traced(tmp_path: Path) -> None:
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    with service(tmp_path / "app.db", tmp_path / "service.log", quiet) as program:
        asyncio.run(crowd(program.url))
        exposed = httpx.get(f"{program.url}/metrics", headers={"Accept": "application/openmetrics-text"}).text
        assert "aiosqlitepool_acquires_total" in exposed
        assert "trace_id" not in exposed


def test_log_records_go_to_a_file_as_lines_of_json(tmp_path: Path) -> None:
    records = tmp_path / "service.log"
    with service(tmp_path / "service.db", tmp_path / "output", {**os.environ, "LOG_FILE": str(records)}):
        lines = [json.loads(line) for line in records.read_text().splitlines()]
    opened = [line for line in lines if line["event"] == "pool.opened"]
    assert {line["pool"] for line in opened} == {"service.db/write", "service.db/read"}
    assert {line["level"] for line in opened} == {"info"}
    assert all(line["timestamp"] for line in lines)
