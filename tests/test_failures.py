from __future__ import annotations

import logging

import pytest

from aiosqlitepool.failures import LOG_INTERVAL, FailureLog

from .support.clock import Clock


def fail(failures: FailureLog, text: str = "broken", handler: object = "handler", *, stays: bool = True) -> None:
    failures.add(handler, "create", ValueError(text), stays=stays)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The errors that were logged with their tracebacks."""
    return [str(record.exc_info[1]) for record in caplog.records if record.exc_info]


def test_a_failure_is_logged_with_handler_event_and_traceback(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    fail(FailureLog(clock))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("aiosqlitepool", logging.ERROR)
    assert record.getMessage() == "subscriber 'handler' failed on 'create'"
    assert logged(caplog) == ["broken"]


def test_a_handler_that_goes_on_failing_is_logged_once_per_interval(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    failures = FailureLog(clock)
    for _ in range(5):
        fail(failures)
    assert len(caplog.records) == 1
    clock.advance(LOG_INTERVAL)
    fail(failures)
    assert len(caplog.records) == 2
    assert "4 more failures" in caplog.records[1].getMessage()
    assert failures.count == 6


def test_each_handler_that_fails_has_a_log_interval_of_its_own(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    failures = FailureLog(clock)
    for _ in range(2):
        fail(failures, "first", handler="one")
        fail(failures, "second", handler="another")
    assert logged(caplog) == ["first", "second"]


def test_nothing_is_remembered_of_a_handler_that_is_gone(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    failures = FailureLog(clock)
    fail(failures, "first")
    failures.forget("handler")
    fail(failures, "second")
    assert logged(caplog) == ["first", "second"]


def test_nothing_is_remembered_of_a_handler_that_unsubscribed_before_it_failed(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    failures = FailureLog(clock)
    fail(failures, "first", stays=False)
    fail(failures, "second", stays=False)
    assert logged(caplog) == ["first", "second"]
