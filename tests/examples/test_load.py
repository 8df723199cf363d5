"""The load generator, on the real service."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from examples.stack_local.programs import Program, free_port, service

from ..support.children import child

LOAD = Path(__file__).parents[2] / "examples" / "load.py"


def test_it_loads_the_service_until_ctrl_c(program: Program) -> None:
    with child([sys.executable, LOAD, program.url], stdout=subprocess.PIPE) as load:
        assert load.stdout is not None
        try:
            said = load.stdout.readline()
        finally:
            load.send_signal(signal.SIGINT)
            assert load.wait(30) == 0
    assert re.fullmatch(r"\d+ requests/s, P99 \d+ ms: .*\b[1-9]\d* x 200.*\n", said)


def test_sigterm_ends_it_as_well(program: Program) -> None:
    with child([sys.executable, LOAD, program.url], stdout=subprocess.PIPE) as load:
        assert load.stdout is not None
        load.stdout.readline()
        load.terminate()
        assert load.wait(30) == 0


def test_it_waits_for_a_service_that_is_not_up_yet(tmp_path: Path) -> None:
    port = free_port()
    with child([sys.executable, LOAD, f"http://127.0.0.1:{port}"], stdout=subprocess.PIPE) as load:
        assert load.stdout is not None
        try:
            with service(tmp_path / "app.db", tmp_path / "service.log", os.environ, port):
                assert "requests/s" in load.stdout.readline()
        finally:
            load.terminate()
            assert load.wait(30) == 0
