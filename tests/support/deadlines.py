"""The last deadline of every test: a process that hangs beyond it prints the stacks of all its threads, and ends.

pytest-timeout raises an exception in the main thread. That does not end a test that waits inside C, and nothing ends a
teardown that hangs after a failure: then pytest-timeout and pytest's own faulthandler have cancelled their timers. With
xdist, the test whose process has ended has failed, by its name, and another process runs the rest.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Iterator

import pytest

__all__ = ["GRACE", "Deadlines"]

# Seconds for what follows a timeout or a failure: the teardown, which ends servers, each with a deadline of its own.
GRACE = 120.0


class Deadlines:
    """A plugin of pytest's, for each process that runs tests."""

    def __init__(self, grace: float = GRACE) -> None:
        self._grace = grace
        self._running = False
        # While a test runs, pytest captures what goes to descriptor 2.
        self._stderr = os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        if (limit := timeout_of(item)) and not item.config.getoption("usepdb"):
            self._running = True
            self._end_after(limit + self._grace)
        try:
            return (yield)
        finally:
            self._running = False
            faulthandler.cancel_dump_traceback_later()

    @pytest.hookimpl(trylast=True)
    def pytest_exception_interact(self) -> None:
        """A test has failed: here, pytest's own plugin has cancelled the timer."""
        if self._running:
            self._end_after(self._grace)

    def _end_after(self, seconds: float) -> None:
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._stderr)


def timeout_of(item: pytest.Item) -> float:
    """After how many seconds pytest-timeout ends the test; 0 for never."""
    marker = item.get_closest_marker("timeout")
    given = item.config.getoption("timeout")
    if marker is not None:
        return float(marker.args[0] if marker.args else marker.kwargs["timeout"])
    return float(item.config.getini("timeout") or 0 if given is None else given)
