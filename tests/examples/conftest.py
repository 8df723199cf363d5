from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from examples.stack_local.programs import Program, service

from ..support.otlp import Receiver, over_http


@pytest.fixture(scope="package")
def receiver() -> Iterator[Receiver]:
    with over_http() as receiver:
        yield receiver


@pytest.fixture(scope="package")
def program(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Program]:
    """The service as its users run it: uvicorn, a port, a file."""
    folder = tmp_path_factory.mktemp("service")
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    with service(folder / "service.db", folder / "service.log", {**os.environ, **traced}) as program:
        yield program


@pytest.fixture
def http(program: Program) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=program.url, timeout=30) as client:
        yield client


@pytest.fixture
def database(program: Program) -> Path:
    return program.log.with_name("service.db")
