"""How many worker processes a server was told to start."""

from __future__ import annotations

import logging

import pytest
from prometheus_client import CollectorRegistry

from aiosqlitepool.subscribers import prometheus
from aiosqlitepool.subscribers._workers import workers
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("/venv/bin/uvicorn app:app --workers 4", 4),
        ("/venv/lib/uvicorn/__main__.py app:app --workers=3", 3),
        ("/venv/bin/gunicorn -w 4 app:app", 4),
        ("/venv/bin/gunicorn -w4 --preload app:app", 4),
        ("/venv/bin/gunicorn app:app --workers 2 --bind 0.0.0.0:8000", 2),
        ("/venv/bin/fastapi run --workers 2 app.py", 2),
        ("C:/venv/hypercorn.exe -w 2 app:app", 2),
        ("/venv/bin/uvicorn app:app", 1),
        ("/venv/bin/uvicorn app:app --workers 1", 1),
        ("worker.py --workers 8", 1),
        ("/venv/bin/celery -A app worker -w 8", 1),
        ("", 1),
    ],
)
def test_the_arguments_of_a_server_say_how_many_workers_it_has(command: str, number: int) -> None:
    assert workers(command.split(), {}) == number


@pytest.mark.parametrize(
    ("command", "environment", "number"),
    [
        ("uvicorn app:app", {"WEB_CONCURRENCY": "4"}, 4),
        ("gunicorn app:app", {"WEB_CONCURRENCY": "4"}, 4),
        ("gunicorn app:app", {"GUNICORN_CMD_ARGS": "--workers=3 --bind=0.0.0.0"}, 3),
        ("gunicorn -w 2 app:app", {"GUNICORN_CMD_ARGS": "--workers=3"}, 2),
        ("uvicorn app:app --workers 1", {"WEB_CONCURRENCY": "4"}, 1),
        ("hypercorn app:app", {"WEB_CONCURRENCY": "4"}, 1),
        ("script.py", {"WEB_CONCURRENCY": "4"}, 1),
        ("uvicorn app:app", {"WEB_CONCURRENCY": "many"}, 1),
    ],
)
def test_a_variable_counts_for_the_servers_that_read_it(command: str, environment: dict[str, str], number: int) -> None:
    assert workers(command.split(), environment) == number


def test_these_tests_are_no_server() -> None:
    assert workers(environ={"WEB_CONCURRENCY": "4"}) == 1


@pytest.mark.parametrize(("number", "warnings"), [(1, 0), (2, 1)])
def test_a_subscriber_warns_once_that_each_scrape_sees_one_of_several_processes(
    number: int, warnings: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "workers", lambda: number)
    with caplog.at_level(logging.WARNING, "aiosqlitepool"):
        registry = CollectorRegistry()
        PrometheusSubscriber(registry)
        PrometheusSubscriber(registry)
    assert len(caplog.messages) == warnings
    assert all("2 worker processes" in message and "each scrape sees one" in message for message in caplog.messages)
