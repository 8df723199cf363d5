"""What runs in a contender's process: where it runs, and what it notes of the loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.catalogue import ROOT
from benchmarks.inside.cores import REGIMES, why_unpinned
from benchmarks.inside.members import run_members
from benchmarks.inside.stall import Stall
from benchmarks.inside.task import Task

_PINNED = """
import os
from benchmarks.inside import cores
cores._CAN_PIN, cores._CORES = True, list(range({cores}))
os.sched_setaffinity = lambda process, chosen: print(chosen)
for regime in ("one core", "two cores", ""):
    cores.pin(regime)
print(cores.why_unpinned("two cores"))
"""


@pytest.mark.parametrize(
    ("cores", "told"),
    [(3, ["[0]", "[0, 1]", "[0, 1, 2]", "None"]), (1, ["[0]", "[0]", "[0]", "1 core is available, not 2"])],
)
def test_a_regime_pins_to_its_cores_and_no_regime_gives_them_all_back(cores: int, told: list[str]) -> None:
    # In a process of its own, for the test of what was pinned must not pin the tests.
    program = [sys.executable, "-c", _PINNED.format(cores=cores)]
    ran = subprocess.run(program, cwd=ROOT.parent, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.splitlines() == told


def test_a_system_that_cannot_pin_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.inside.cores._CAN_PIN", False)
    assert {why_unpinned(regime) for regime in REGIMES} == {"this system cannot pin a process to cores"}


class Clock:
    """A loop whose time is what a test says, and whose timers fire when it says."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, object]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: object) -> asyncio.TimerHandle:
        self.due.append((when, callback))
        return asyncio.TimerHandle(when, lambda: None, (), asyncio.get_running_loop())

    def fire(self, late: float) -> None:
        when, callback = self.due.pop()
        self.now = when + late
        callback()  # type: ignore[operator]


async def test_the_longest_stall_is_the_tick_that_was_latest() -> None:
    with Stall() as stall:
        stall._loop = clock = Clock()  # type: ignore[assignment]
        stall._timer.cancel()
        stall._schedule()
        for late in (0.001, 0.25, 0.0005):
            clock.fire(late)
    assert stall.longest == pytest.approx(0.25)


async def test_a_stall_at_the_very_end_counts() -> None:
    with Stall() as stall:
        stall._loop = clock = Clock()  # type: ignore[assignment]
        stall._timer.cancel()
        stall._schedule()
        clock.now += 0.5
    assert stall.longest == pytest.approx(0.5 - 0.002)


def member_task(scratch: Path) -> Task:
    return Task("processes", "any", 1, database="", scratch=str(scratch), users=1, posts=1)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("pass", "a member ended without an answer"),
        ("print('{}'); print('{\"error\": \"Traceback\\\\nOSError: no\"}')", "a member failed: OSError: no"),
    ],
)
async def test_a_member_that_fails_fails_the_round_at_once(
    program: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", program])
    with pytest.raises(RuntimeError, match=f"^{told}$"):
        await run_members(member_task(tmp_path), 2)


async def test_what_members_hand_over_is_returned_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
import asyncio, json, sys
from benchmarks.inside.members import hand_over, wait_for_start
from benchmarks.inside.task import Task
task = Task(**json.loads(sys.stdin.readline()))
begins = asyncio.run(wait_for_start(task))
hand_over(task, [task.member, begins])
print("{}"); print("{}")
"""
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", program])
    monkeypatch.chdir(ROOT.parent)
    (first, begins), (second, also_begins) = await run_members(member_task(tmp_path), 2)
    assert (first, second) == (1, 2)
    assert begins == also_begins
