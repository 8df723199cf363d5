"""Processes of a workload's own, beside the one that measures, which all begin at the same time.

A member is another worker of the same contender, started by the command that started this one. It gets the same task,
but for its number, and hands over through files in the task's scratch folder: `<number>.ready`, `start` with the time
at which to begin, and `<number>.json`. The clock is `time.monotonic()`, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .task import Task

__all__ = ["hand_over", "run_members", "wait_for_start"]

_POLL = 0.01
_LEAD = 0.05
"""Seconds from the last member's being ready to the common start: several times what a poll takes."""
_SECONDS = 60


async def run_members(task: Task, count: int) -> list[Any]:
    """Run `count` members and return what each has handed over; raises `RuntimeError` if one fails."""
    members = [_started(replace(task, member=number)) for number in range(1, count + 1)]
    try:
        await _until_ready(task, members)
        _write(Path(task.scratch) / "start", str(time.monotonic() + _LEAD))
        await asyncio.gather(*(asyncio.to_thread(_check, member) for member in members))
        files = (Path(task.scratch) / f"{number}.json" for number in range(1, count + 1))
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]
    finally:
        for member in members:
            member.kill()
            with member:  # waits for its end, and closes its pipes
                pass


def _started(task: Task) -> subprocess.Popen[str]:
    member = subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert member.stdin is not None
    with member.stdin:  # one task, after which it ends
        member.stdin.write(json.dumps(asdict(task)) + "\n")
    return member


async def _until_ready(task: Task, members: list[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + _SECONDS
    files = [Path(task.scratch) / f"{number}.ready" for number in range(1, len(members) + 1)]
    while not all(file.exists() for file in files):
        for member in members:
            if member.poll() is not None:
                _check(member)
        if time.monotonic() > deadline:
            raise RuntimeError(f"a member was not ready within {_SECONDS} s")
        await asyncio.sleep(_POLL)


def _check(member: subprocess.Popen[str]) -> None:
    assert member.stdout is not None
    _, *answers = member.stdout.read().splitlines() or [""]  # the first line is what it runs on
    if not answers:
        raise RuntimeError("a member ended without an answer")
    if error := json.loads(answers[-1]).get("error"):
        raise RuntimeError(f"a member failed: {error.strip().splitlines()[-1]}")


async def wait_for_start(task: Task) -> float:
    """In a member: say that it is ready, wait until all are, and return the time of the common start, once it is."""
    folder = Path(task.scratch)
    _write(folder / f"{task.member}.ready", "")
    start = folder / "start"
    while not start.exists():  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(_POLL)
    begins = float(start.read_text(encoding="utf-8"))
    await asyncio.sleep(begins - time.monotonic())
    return begins


def hand_over(task: Task, content: Any) -> None:
    """In a member: what `run_members` returns of it."""
    _write(Path(task.scratch) / f"{task.member}.json", json.dumps(content))


def _write(path: Path, text: str) -> None:
    """A reader never sees half of it."""
    unfinished = path.with_name(f"{path.name}-unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
