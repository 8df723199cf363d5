"""How `pytest -n 3` spreads the suite over its workers: by file, the longest first.

A file stays together, for what its tests share is made once; so does the package that shares running servers. Tests of
different files may run at the same time, and do: none may need the machine, or a port, for itself.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

__all__ = ["ByFile", "longest_first"]

# One set of servers for all of its tests, most of which only wait; the leak has a set of its own.
TOGETHER = "tests/stack"
ALONE = f"{TOGETHER}/test_leak.py"

# What takes longest: begun late, one of these would keep one worker busy when the others have nothing left to do.
LONGEST = (
    TOGETHER,
    ALONE,
    "tests/test_soak.py",
    "tests/test_simulation.py",
    "tests/debug/test_browser.py",
    "tests/dashboards/test_live.py",
    "tests/metrics/test_promtool.py",
    "tests/pool/test_exits.py",
    "tests/test_storm.py",
    "tests/examples/test_background_worker.py",
    "tests/examples/test_load.py",
    "tests/examples/test_stack_local.py",
    "tests/cli/test_demo.py",
)
PLACES = {scope: place for place, scope in enumerate(LONGEST)}


def scope_of(nodeid: str) -> str:
    """What a test stays together with."""
    file = nodeid.partition("::")[0]
    return TOGETHER if file.startswith(f"{TOGETHER}/") and file != ALONE else file


def longest_first(items: list[pytest.Item]) -> None:
    """Put them into the order in which they are to be begun."""
    items.sort(key=lambda item: PLACES.get(scope_of(item.nodeid), len(PLACES)))


class ByFile(LoadScopeScheduling):
    """Hands out whole files, in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

    def remove_node(self, node: Any) -> str | None:
        """Return the test during which the process of `node` has ended; give its other tests to the others."""
        unfinished = {scope: unit for scope, unit in self.assigned_work[node].items() if not all(unit.values())}
        self.assigned_work[node] = unfinished
        running = next((test for unit in unfinished.values() for test, ended in unit.items() if not ended), None)
        if running is not None:
            # It has failed. Begun again, it would hang again.
            unfinished[scope_of(running)][running] = True
        super().remove_node(node)
        return running
