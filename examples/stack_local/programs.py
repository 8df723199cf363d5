"""Child programs: each on a free port, ready before it is used, and ended with this one.

Knows how to start Prometheus and Alertmanager; nothing of pools or metrics.
"""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

__all__ = [
    "ENDING",
    "Program",
    "ProgramEndedError",
    "alertmanager",
    "free_port",
    "load",
    "missing",
    "prometheus",
    "running",
    "service",
    "undisturbed",
]

# Debian's package, and the program that it brings.
PACKAGES = {"prometheus": "prometheus", "prometheus-alertmanager": "prometheus-alertmanager"}

EXAMPLES = Path(__file__).parents[1]

# Signals that end everything: Ctrl-C, `kill`, and the end of the terminal.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# No proxy for addresses of this machine.
_ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

# Below the ports that systems give to those that ask for any: 32768 and more on Linux, 49152 elsewhere.
_PORTS = range(20_000, 32_768)

_READY_WITHIN = 60.0  # seconds; a busy machine is slow, a broken program ends at once
_END_WITHIN = 10.0


def _answers(url: str) -> bool:
    try:
        with _ask(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:  # not ready yet
        error.close()
    except OSError:  # not even listening
        pass
    return False


class ProgramEndedError(Exception):
    """A program ended, or was not ready in time; the message has the end of its log."""


class Program:
    """A running program: `url` is its address, `log` the file with its output."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.name = name
        self.url = url
        self.log = log
        self._process = process

    def check(self) -> None:
        """Raise `ProgramEndedError` if it does not run any more."""
        if self._process.poll() is not None:
            raise ProgramEndedError(f"{self.name} ended with {self._process.returncode}:\n{self._last_words()}")

    def wait_until_ready(self, path: str) -> None:
        """Return once `path` answers with 200."""
        deadline = time.monotonic() + _READY_WITHIN
        while time.monotonic() < deadline:
            self.check()
            if _answers(self.url + path):
                return
            time.sleep(0.1)
        raise ProgramEndedError(f"{self.name} was not ready within {_READY_WITHIN:.0f} s:\n{self._last_words()}")

    def end(self) -> None:
        """Ask it to end, and kill it if it does not."""
        self._process.terminate()
        try:
            self._process.wait(_END_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _last_words(self) -> str:
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-15:])


def missing() -> list[str]:
    """The Debian packages that are not installed."""
    return [package for package, command in PACKAGES.items() if shutil.which(command) is None]


def free_port() -> int:
    """Return a free port on loopback, which the system gives to no other program meanwhile."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            port = random.choice(_PORTS)
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    log: Path,
    *,
    port: int,
    ready: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[Program]:
    """Run a command that serves HTTP on `port` of loopback, from its answer to `ready` until the block ends."""
    with ExitStack() as stack:
        with undisturbed():
            program = Program(name, _started(command, log, env, cwd), f"http://127.0.0.1:{port}", log)
            stack.callback(program.end)
        program.wait_until_ready(ready)
        yield program


def _started(
    command: Sequence[str], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        # In its own session: Ctrl-C reaches only this program, which ends the others in order.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, cwd=cwd, start_new_session=True
        )


@contextmanager
def undisturbed() -> Iterator[None]:
    """Delay Ctrl-C and similar signals until the block ends: a program that has just started would not be ended."""
    came: list[int] = []
    caught = [each for each in ENDING if threading.current_thread() is threading.main_thread()]
    handlers = {each: signal.signal(each, lambda number, _: came.append(number)) for each in caught}
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    for number in came[:1]:
        signal.raise_signal(number)


@contextmanager
def prometheus(config: Path, folder: Path) -> Iterator[Program]:
    """Debian's Prometheus with this configuration and its data in `folder`."""
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
    ]
    with running("Prometheus", command, folder / "prometheus.log", port=port, ready="/-/ready") as program:
        yield program


@contextmanager
def alertmanager(config: Path, folder: Path) -> Iterator[Program]:
    """Debian's Alertmanager with this configuration and its data in `folder`; alone, without a cluster."""
    port = free_port()
    command = [
        "prometheus-alertmanager",
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with running("Alertmanager", command, folder / "alertmanager.log", port=port, ready="/-/ready") as program:
        yield program


@contextmanager
def service(database: Path, log: Path, env: Mapping[str, str], port: int | None = None) -> Iterator[Program]:
    """The example service with its database there."""
    port = free_port() if port is None else port
    command = [sys.executable, "-m", "uvicorn", "fastapi_service.app:app", "--app-dir", str(EXAMPLES)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    with running(
        "The service", command, log, port=port, ready="/health", env={**env, "DATABASE": str(database)}
    ) as program:
        yield program


@contextmanager
def load(app: Program, log: Path) -> Iterator[None]:
    """Load on the service, until the block ends."""
    command = [sys.executable, str(EXAMPLES / "load.py"), app.url]
    with ExitStack() as stack:
        with undisturbed():
            stack.callback(Program("The load", _started(command, log), app.url, log).end)
        yield
