"""`make stack-local`: one command that starts everything, says where it is, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from ..support.debian import ask, has_number, installed, queried, wait_for

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "examples.stack_local"]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.timeout(300)
def test_everything_runs_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    installed("prometheus", "prometheus-alertmanager")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [*COMMAND, "--time-scale", "0.05"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as stack:
        assert stack.stdout is not None
        try:
            said = ""
            for line in stack.stdout:
                said += line
                if "Ctrl-C" in line:
                    break
            programs = children(stack.pid)
            (graph,) = re.findall(r"^P99 wait +(\S+)$", said, re.MULTILINE)
            (manager,) = re.findall(r"--alertmanager.url=(\S+)$", said, re.MULTILINE)
            server = graph.partition("/graph")[0]
            (expression,) = parse_qs(urlsplit(graph).query)["g0.expr"]
            wait_for("the P99 wait", lambda: has_number(queried(server, expression)), within=120)
            known = ask(f"{server}/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
            assert [each["url"] for each in known] == [f"{manager}/api/v2/alerts"]
        finally:
            stack.send_signal(signal.SIGINT)
            rest = stack.stdout.read()
            assert stack.wait(60) == 0
    assert "All ended." in rest
    assert len(programs) == 4
    assert [pid for pid in programs if Path(f"/proc/{pid}").exists()] == []
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        COMMAND, cwd=ROOT, env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "Not installed: prometheus, prometheus-alertmanager" in done.stderr
    assert "apt-get install --no-install-recommends prometheus prometheus-alertmanager" in done.stderr


def test_a_wrong_scale_is_named() -> None:
    done = subprocess.run(
        [*COMMAND, "--time-scale", "0"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "argument --time-scale: must be a positive number, not '0'" in done.stderr
