"""Real programs in processes of their own, each with a deadline."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

# What the issue asks for is 3 seconds; the deadline only tells a hang from a slow machine.
DEADLINE = 30.0

# Whatever of this a program says at its end is a mess that the pool left.
UNTIDY = (
    "Exception ignored",
    "Task was destroyed",
    "never retrieved",
    "never awaited",
    "Fatal Python error",
    "Traceback",
    "was deleted before being closed",
)

# What asyncio's debug mode says of a callback that took 0.1 s: on a busy machine, any does.
SLOW_CALLBACK = re.compile(r"^Executing <.*> took \d+\.\d+ seconds\n", re.MULTILINE)


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int
    out: str
    err: str
    seconds: float

    def untidy(self, *but: str) -> list[str]:
        """The marks of a mess on its standard error, without those that are the program's own."""
        return [mark for mark in UNTIDY if mark in self.err and mark not in but]


def run_program(
    program: str, directory: Path, *, interrupt: bool = False, options: tuple[str, ...] = ("-X", "dev")
) -> Ended:
    """Run a Python program in `directory`; with `interrupt`, press Ctrl-C once it has printed "ready".

    A child that does not end within `DEADLINE` seconds is killed, and the test fails.
    """
    script = directory / "program.py"
    script.write_text(textwrap.dedent(program), encoding="utf-8")
    began = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, *options, str(script)],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    try:
        heard = ""
        if interrupt:
            assert child.stdout is not None
            heard = child.stdout.readline()
            assert heard == "ready\n", f"said {heard!r} instead of ready: {child.stderr.read() if child.stderr else ''}"
            began = time.monotonic()
            child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out, err = child.communicate()
        raise AssertionError(f"the program hung:\n{out}\n{err}") from None
    seconds = time.monotonic() - began
    print(f"ended with {child.returncode} after {seconds:.2f} s")
    return Ended(child.returncode, heard + out, SLOW_CALLBACK.sub("", err), seconds)
