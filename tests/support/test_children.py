"""Programs that tests start: nothing waits for one for ever."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .children import child, in_a_forked_child

TESTS = Path(__file__).parents[1]
FOR_EVER = [sys.executable, "-c", "import time; print('runs', flush=True); time.sleep(600)"]
# Ends itself, or what it serves, with a deadline.
STARTERS = {
    "support/children.py",
    "support/turso_server.py",
    "dashboards/servers.py",
    "examples/test_several_workers.py",
}


def test_a_program_that_hangs_is_killed_and_its_reader_goes_on() -> None:
    with pytest.raises(AssertionError, match=r"it did not end within 1 s: .*sleep\(600\)"):
        with child(FOR_EVER, within=1, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.read() == "runs\n"


def test_the_failure_that_comes_of_it_is_its_cause() -> None:
    with pytest.raises(AssertionError, match="it did not end within 1 s") as failed:
        with child(FOR_EVER, within=1, stdout=subprocess.DEVNULL) as process:
            assert process.wait() == 0
    assert isinstance(failed.value.__cause__, AssertionError)


def test_a_program_does_not_outlive_its_block() -> None:
    with child(FOR_EVER, stdout=subprocess.DEVNULL) as process:
        pass
    assert process.returncode is not None


def test_a_failure_of_the_test_itself_stays_what_it_is() -> None:
    with pytest.raises(KeyError), child(FOR_EVER, stdout=subprocess.DEVNULL):
        raise KeyError


def test_what_the_program_has_started_is_killed_with_it() -> None:
    program = f"import subprocess; subprocess.run({FOR_EVER})"
    with child([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        group = process.pid
    while True:  # the kernel takes its time
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)


def test_a_fork_ends_with_its_answer() -> None:
    assert in_a_forked_child(lambda: 7) == 7


def test_a_fork_that_raises_ends_too() -> None:
    assert in_a_forked_child(lambda: 1 // 0) == 99


def without_deadline(file: Path) -> Iterator[str]:
    name, source = file.relative_to(TESTS).as_posix(), file.read_text(encoding="utf-8")
    for call in ast.walk(ast.parse(source if "subprocess." in source else "")):
        if isinstance(call, ast.Call):
            started = ast.unparse(call.func)
            is_limited = any(keyword.arg == "timeout" for keyword in call.keywords)
            if started in ("subprocess.run", "subprocess.check_output", "subprocess.check_call") and not is_limited:
                yield f"{name}:{call.lineno}: {started}() needs a timeout"
            if started == "subprocess.Popen" and name not in STARTERS:
                yield f"{name}:{call.lineno}: tests.support.children has child()"


def test_every_program_has_a_deadline() -> None:
    assert [found for file in sorted(TESTS.rglob("*.py")) for found in without_deadline(file)] == []
