"""What a long run says before its end: each failure at once, and what runs while nothing ends.

A run that its own limit ends says what has failed and what was running, too. Knows nothing of what is tested.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

__all__ = ["SILENCE", "Progress", "interrupted_by_sigterm", "writing"]

# Seconds without the end of a test, after which the running ones are named.
SILENCE = 60.0


class Progress:
    """A plugin of pytest's for the process that prints, which with xdist runs no test itself."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._began: dict[str, float] = {}
        self._spoke = clock()
        self._over = threading.Event()

    def watch(self) -> None:
        """Look for silence from a thread, until the session ends; pytest would capture what it says where tests run."""
        threading.Thread(target=self._watch, name="progress", daemon=True).start()

    def _watch(self) -> None:
        while not self._over.wait(SILENCE / 4):
            self.look()

    def look(self) -> None:
        """Name the running tests, if nothing has been said for long."""
        if self._clock() - self._spoke >= SILENCE:
            self._write(f"{SILENCE:.0f} s without a result ({machine()}){self._running()}")
            self._spoke = self._clock()

    def _running(self) -> str:
        now = self._clock()
        return "".join(f"\n  running for {now - began:.0f} s: {test}" for test, began in tuple(self._began.items()))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._began[nodeid] = self._clock()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._began.pop(nodeid, None)
        self._spoke = self._clock()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._write(told(report))
        if report.when not in ("setup", "call", "teardown"):  # its process has ended
            self._began.pop(report.nodeid, None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self._over.set()
        if self._began:
            self._write(f"Not ended ({machine()}):{self._running()}")


def told(report: pytest.TestReport) -> str:
    """A failure in full: its name, its traceback, and what was captured."""
    parts = [f"FAILED ({report.when}, after {report.duration:.1f} s) {report.nodeid}", report.longreprtext]
    return "\n".join([*parts, *(f"--- {title}\n{text.rstrip()}" for title, text in report.sections)])


def machine() -> str:
    """How busy the machine is: a hang and a slow machine look the same otherwise."""
    said = f"load {os.getloadavg()[0]:.1f}"
    if (memory := Path("/proc/meminfo")).exists():
        free = dict(line.split(":") for line in memory.read_text().splitlines())["MemAvailable"]
        said += f", {int(free.split()[0]) // 1024} MB of memory available"
    return said


def writing(terminal: Any) -> Callable[[str], None]:
    """Writes below the dots of pytest's terminal reporter, at once."""

    def write(text: str) -> None:
        terminal.write_line(f"\n{text}")
        terminal.flush()

    return write


def interrupted_by_sigterm() -> None:
    """Have SIGTERM, which `timeout` sends, end the run as Ctrl-C does: with a summary."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
