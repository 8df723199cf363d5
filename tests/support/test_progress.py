"""What a run says before its end."""

from __future__ import annotations

import re
from typing import Literal

import pytest

from .clock import Clock
from .progress import SILENCE, Progress

TEST = "tests/test_it.py::test_this"
SLOW = "tests/test_it.py::test_slow"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def progress(said: list[str], clock: Clock) -> Progress:
    return Progress(said.append, clock)


def report(when: Literal["setup", "call", "teardown"], longrepr: str | None) -> pytest.TestReport:
    outcome: Literal["passed", "failed"] = "failed" if longrepr else "passed"
    sections = [("Captured stdout call", "printed\n")]
    return pytest.TestReport(TEST, ("", None, ""), {}, outcome, longrepr, when, sections, duration=2.0)


def test_a_failure_is_told_in_full(progress: Progress, said: list[str]) -> None:
    progress.pytest_runtest_logreport(report("call", "assert 1 == 2"))
    assert said == [f"FAILED (call, after 2.0 s) {TEST}\nassert 1 == 2\n--- Captured stdout call\nprinted"]


def test_what_passes_is_not_told(progress: Progress, said: list[str]) -> None:
    progress.pytest_runtest_logreport(report("call", None))
    assert said == []


def test_what_runs_is_named_once_in_each_time_of_silence(progress: Progress, said: list[str], clock: Clock) -> None:
    progress.pytest_runtest_logstart(SLOW)
    clock.advance(10)
    progress.pytest_runtest_logstart(TEST)
    clock.advance(SILENCE - 10)
    progress.look()
    progress.look()
    (told,) = said
    assert re.match(r"60 s without a result \(load \d+\.\d", told)
    assert told.splitlines()[1:] == [f"  running for 60 s: {SLOW}", f"  running for 50 s: {TEST}"]
    clock.advance(SILENCE)
    progress.look()
    assert len(said) == 2


def test_a_test_that_ends_breaks_the_silence_and_is_not_named_any_more(
    progress: Progress, said: list[str], clock: Clock
) -> None:
    for test in (SLOW, TEST):
        progress.pytest_runtest_logstart(test)
    clock.advance(SILENCE - 1)
    progress.pytest_runtest_logfinish(TEST)
    clock.advance(SILENCE - 1)
    progress.look()
    assert said == []
    clock.advance(1)
    progress.look()
    assert SLOW in said[0]
    assert TEST not in said[0]


def test_at_its_end_it_names_what_has_not_ended(progress: Progress, said: list[str], clock: Clock) -> None:
    progress.pytest_runtest_logstart(SLOW)
    clock.advance(5)
    progress.pytest_sessionfinish()
    (told,) = said
    assert told.startswith("Not ended (load ")
    assert told.endswith(f"):\n  running for 5 s: {SLOW}")


def test_a_whole_run_ends_without_a_word(progress: Progress, said: list[str]) -> None:
    progress.pytest_runtest_logstart(TEST)
    progress.pytest_runtest_logfinish(TEST)
    progress.pytest_sessionfinish()
    assert said == []


def test_a_test_whose_process_has_ended_does_not_run_any_more(progress: Progress, said: list[str]) -> None:
    progress.pytest_runtest_logstart(TEST)
    crash = report("call", "worker 'gw0' crashed")
    crash.when = "???"  # type: ignore[assignment]  # as xdist has it
    progress.pytest_runtest_logreport(crash)
    progress.pytest_sessionfinish()
    assert [told.partition("\n")[0] for told in said] == [f"FAILED (???, after 2.0 s) {TEST}"]
