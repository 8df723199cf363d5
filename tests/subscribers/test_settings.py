"""The arguments that the subscribers of Prometheus and OpenTelemetry share."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from aiosqlitepool.subscribers import _buckets
from aiosqlitepool.subscribers.opentelemetry import OpenTelemetrySubscriber
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

Subscribe = Callable[..., Any]
BUCKETS = ("wait_buckets", "create_buckets", "use_buckets", "transaction_buckets", "statement_buckets")


@pytest.fixture(params=["in-process", "multiprocess", "opentelemetry"])
def subscribe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Subscribe:
    """Make a subscriber; all share their registry or provider."""
    if request.param == "opentelemetry":
        provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
        return partial(OpenTelemetrySubscriber, None, provider)
    if request.param == "multiprocess":
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")
    return partial(PrometheusSubscriber, CollectorRegistry())


@pytest.mark.parametrize("number", [-1, 101, 1.0, "20", True, None, math.nan])
def test_a_number_of_summaries_that_makes_no_sense_is_refused_by_name(subscribe: Subscribe, number: object) -> None:
    with pytest.raises(ValueError, match=rf"statement_summaries must be a whole number from 0 to 100, not {number!r}"):
        subscribe(statement_summaries=number)
    subscribe(statement_summaries=7)  # nothing is left of the one that was refused


@pytest.mark.parametrize("number", [0, 1, 100])
def test_any_other_number_of_summaries_is_accepted(subscribe: Subscribe, number: int) -> None:
    assert subscribe(statement_summaries=number) is not None


@pytest.mark.parametrize("flag", [0, 1, "no", None])
def test_by_label_is_true_or_false(subscribe: Subscribe, flag: object) -> None:
    with pytest.raises(ValueError, match=f"by_label must be True or False, not {flag!r}"):
        subscribe(by_label=flag)


@pytest.mark.parametrize("argument", BUCKETS)
def test_buckets_that_make_no_sense_are_refused_by_name(subscribe: Subscribe, argument: str) -> None:
    with pytest.raises(ValueError, match=argument):
        subscribe(**{argument: [2, 1]})


@pytest.mark.parametrize(
    ("argument", "value"),
    [*((argument, (1.0, 2.0)) for argument in BUCKETS), ("statement_summaries", 7), ("by_label", True)],
)
def test_a_second_subscriber_that_wants_something_else_is_refused_and_told_what(
    subscribe: Subscribe, argument: str, value: object
) -> None:
    subscribe()
    with pytest.raises(ValueError, match=rf"already, with {argument}=.*, not .*: use the same, or another") as refused:
        subscribe(**{argument: value})
    assert repr(value) in str(refused.value)
    subscribe()


def test_a_second_subscriber_may_say_the_same_in_other_words(subscribe: Subscribe) -> None:
    subscribe(statement_buckets=[1, 2], statement_summaries=7, by_label=True)
    assert subscribe(statement_buckets=(1.0, 2.0, math.inf), statement_summaries=7, by_label=True) is not None


def test_statements_are_measured_from_50_microseconds_to_10_seconds() -> None:
    assert (_buckets.STATEMENT_BUCKETS[0], _buckets.STATEMENT_BUCKETS[-1]) == (0.00005, 10.0)
