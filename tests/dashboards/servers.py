"""A real Prometheus on loopback that scrapes real programs, for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dashboards.render.ask import Prometheus
from examples.stack_local.programs import free_port

from ..support.children import child

ROOT = Path(__file__).parents[2]
# Generous: a laden machine takes its time, and a condition that holds ends the wait.
PATIENCE = 60.0
# Seconds that a driver may run: longer than all that is asked of it.
LIFETIME = 1200.0

CONFIG = """\
global: {{scrape_interval: {interval}, scrape_timeout: {interval}, evaluation_interval: 1s}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: api
    static_configs:
"""
TARGET = "      - {{targets: ['127.0.0.1:{port}'], labels: {{instance: {name}}}}}\n"


def installed() -> bool:
    """Whether there is a Prometheus here."""
    return shutil.which("prometheus") is not None


@contextlib.contextmanager
def driver(*options: str) -> Iterator[int]:
    """The driver with these options; yields the port of its `/metrics`."""
    # What its pools log is what the board is about, not news.
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    with (
        tempfile.TemporaryDirectory() as directory,
        child(
            [sys.executable, "-m", "tests.dashboards.driver", directory, "--tethered", *options],
            within=LIFETIME,
            cwd=ROOT,
            stdin=pipe,
            stdout=pipe,
            stderr=nowhere,
        ) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the driver ended by itself: {process.wait()}"
        yield int(line)


@contextlib.contextmanager
def prometheus(ports: dict[str, int], interval: str = "1s", rules: str = "groups: []") -> Iterator[Prometheus]:
    """A Prometheus with these rules that scrapes these ports, each as an instance of the job `api`."""
    with tempfile.TemporaryDirectory() as directory:
        address = f"127.0.0.1:{free_port()}"
        config = Path(directory) / "prometheus.yml"
        config.with_name("rules.yml").write_text(rules)
        targets = (TARGET.format(name=name, port=port) for name, port in ports.items())
        config.write_text(CONFIG.format(interval=interval) + "".join(targets))
        with _running(_command(config, directory, address), Path(directory) / "log") as process:
            until(lambda: _ready(address, process), "Prometheus is ready")
            yield Prometheus(f"http://{address}")


def _command(config: Path, directory: str, address: str) -> Sequence[str]:
    return (
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address={address}",
        "--enable-feature=exemplar-storage",
    )


@contextlib.contextmanager
def _running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()


def _ready(address: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"Prometheus ended by itself: {process.returncode}"
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        error.close()  # it keeps the response open, of which Python 3.15 warns
        return False
    except (urllib.error.URLError, ConnectionError):
        return False


def until(holds: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait until it holds; `AssertionError` if it does not within `patience` seconds."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, f"not within {patience:.0f} s: {what}"
        time.sleep(0.2)
