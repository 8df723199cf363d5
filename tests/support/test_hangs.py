"""A suite that hangs, or that is ended from outside, says where: in real runs of pytest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .children import child

ROOT = Path(__file__).parents[2]
CONFTEST = """
from tests.support.deadlines import Deadlines
from tests.support.progress import Progress, interrupted_by_sigterm, writing
from tests.support.spread import ByFile

def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)

def pytest_sessionstart(session):
    plugins = session.config.pluginmanager
    plugins.register(Deadlines(grace=5.0))
    if terminal := plugins.getplugin("terminalreporter"):
        plugins.register(Progress(writing(terminal)))
    if plugins.hasplugin("dsession"):
        interrupted_by_sigterm()
"""
# Deaf to the exception by which pytest-timeout ends a test, as a call into C is.
DEAF = """
import time
import pytest

def hang():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""
HANGS = """
@pytest.mark.timeout(0.5)
def test_that_hangs():
    hang()
"""
HANGS_AFTER_IT = """
@pytest.fixture
def stays():
    yield
    hang()

def test_that_fails(stays):
    assert "this" == "that"
"""
PASSES = """
def test_that_passes():
    pass
"""


@contextmanager
def running(folder: Path, tests: str, workers: int) -> Iterator[subprocess.Popen[str]]:
    """pytest on these tests, each file with one that passes beside them."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(DEAF + tests + PASSES)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        str(workers),
        "-p",
        "xdist",
        "-p",
        "pytest_timeout",
        "--timeout",
        "60",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV"))}
    environment |= {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    pipe = subprocess.PIPE
    with child([*command, folder], cwd=folder, env=environment, stdout=pipe, stderr=subprocess.STDOUT) as process:
        yield process


def result(folder: Path, tests: str, workers: int = 1) -> tuple[int, str]:
    with running(folder, tests, workers) as process:
        output, _ = process.communicate(timeout=60)
        return process.returncode, output


def test_a_test_that_no_exception_ends_fails_by_its_name_and_the_others_run(tmp_path: Path) -> None:
    code, output = result(tmp_path, HANGS)
    assert code == 1
    assert "crashed while running 'test_it.py::test_that_hangs'" in output
    assert 'test_it.py", line 8 in hang' in output  # the stack
    assert "1 failed, 1 passed" in output


def test_a_teardown_that_hangs_after_a_failure_ends_too_and_both_are_told(tmp_path: Path) -> None:
    code, output = result(tmp_path, HANGS_AFTER_IT)
    assert code == 1
    assert "AssertionError: assert 'this' == 'that'" in output
    assert "crashed while running 'test_it.py::test_that_fails'" in output
    assert "2 failed, 1 passed" in output


def test_without_xdist_the_stack_is_all_that_there_is_to_tell(tmp_path: Path) -> None:
    code, output = result(tmp_path, HANGS, workers=0)
    assert code == 1
    assert 'test_it.py", line 8 in hang' in output
    assert "in test_that_hangs" in output


def test_a_failure_is_told_at_once_and_again_in_the_summary_after_sigterm(tmp_path: Path) -> None:
    tests = """
def test_that_fails():
    assert "this" == "that"

def test_that_takes_long():
    time.sleep(60)
"""
    with running(tmp_path, tests, workers=1) as process:
        assert process.stdout is not None
        told = ""
        while "AssertionError: assert 'this' == 'that'" not in told:
            told += (line := process.stdout.readline())
            assert line, told
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
    assert "FAILED (call, after" in told
    assert "test_it.py::test_that_fails" in told
    assert "KeyboardInterrupt" in rest
    assert "FAILED test_it.py::test_that_fails" in rest
