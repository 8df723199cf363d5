"""`make stack-local`: one command that starts everything, says where it is, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from examples.stack_local.programs import free_port, running

from ..support.children import child
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
    with child(command, within=240, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as stack:
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


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says")
def test_a_free_port_is_none_that_the_system_gives_to_whoever_asks_for_any() -> None:
    first, _ = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = [free_port() for _ in range(100)]
    assert max(ports) < first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[-1]))


ENDINGS = {
    "the terminal has closed": [signal.SIGHUP],
    "killed": [signal.SIGTERM],
    "Ctrl-C again and again": 5 * [signal.SIGINT],
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("signals", ENDINGS.values(), ids=ENDINGS)
def test_however_it_is_ended_nothing_is_left_behind_also_where_there_is_a_proxy(
    tmp_path: Path, signals: list[int]
) -> None:
    installed("prometheus", "prometheus-alertmanager")
    environment = {**os.environ, "TMPDIR": str(tmp_path), "http_proxy": "http://127.0.0.1:9"}
    with child(COMMAND, within=240, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as stack:
        assert stack.stdout is not None
        try:
            started = any("Ctrl-C" in line for line in stack.stdout)
            programs = children(stack.pid)
        finally:
            for each in signals:
                stack.send_signal(each)
                time.sleep(0.05)  # or the kernel makes one signal of them
            stack.communicate(timeout=60)
    assert (started, stack.returncode, len(programs)) == (True, 0, 4)
    assert [pid for pid in programs if Path(f"/proc/{pid}").exists()] == []
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_a_program_is_being_started_ends_that_one_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen, processes = subprocess.Popen, list[Any]()

    def interrupted(*arguments: Any, **options: Any) -> Any:
        processes.append(popen(*arguments, **options))
        signal.raise_signal(signal.SIGINT)
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pytest.raises(KeyboardInterrupt), running("it", command, tmp_path / "log", port=9, ready="/"):
        pass
    (process,) = processes
    assert process.poll() is not None


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
