from __future__ import annotations

import gc
import inspect
import math
import re
import time
from typing import Any

import pytest

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.pool.settings import check_label

from ..support.stub import StubDriver

COUNTS = ["pool_size", "min_size", "max_waiting"]
FROM_ZERO = ["acquisition_timeout", "idle_timeout", "health_check_after", "slow_acquire", "slow_statement"]
ABOVE_ZERO = ["operation_timeout", "max_lifetime", "leak_threshold"]
SECONDS = FROM_ZERO + ABOVE_ZERO


def refuses(kind: type[Exception], argument: str, value: object) -> None:
    """The pool refuses the value with an error that names both argument and value."""
    with pytest.raises(kind, match=f"{argument}.*{re.escape(repr(value))}"):
        SQLiteConnectionPool(StubDriver(), **{argument: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("argument", COUNTS)
@pytest.mark.parametrize("value", [True, False, 2.0, "5", b"5", math.nan, math.inf, [5]])
def test_a_count_must_be_an_int(argument: str, value: object) -> None:
    refuses(TypeError, argument, value)


@pytest.mark.parametrize(("argument", "value"), [("pool_size", 0), *[(argument, -1) for argument in COUNTS]])
def test_a_count_must_be_large_enough(argument: str, value: int) -> None:
    refuses(ValueError, argument, value)


@pytest.mark.parametrize("argument", ["pool_size", "min_size"])
def test_only_an_upper_limit_can_be_none(argument: str) -> None:
    refuses(TypeError, argument, None)


def test_min_size_must_fit_into_pool_size() -> None:
    with pytest.raises(ValueError, match=r"min_size.*pool_size \(3\).*4"):
        SQLiteConnectionPool(StubDriver(), 3, min_size=4)


@pytest.mark.parametrize("most", [10_001, 10**400])
def test_a_pool_cannot_have_more_connections_than_a_process_could_have_threads(most: int) -> None:
    with pytest.raises(ValueError, match=f"pool_size must be at most 10000, not {most}"):
        SQLiteConnectionPool(StubDriver(), most)


def test_with_min_size_connections_must_be_allowed_to_be_idle() -> None:
    with pytest.raises(ValueError, match=r"idle_timeout must be greater than 0 seconds with min_size=2, not 0"):
        SQLiteConnectionPool(StubDriver(), 3, min_size=2, idle_timeout=0)


@pytest.mark.parametrize("argument", SECONDS)
@pytest.mark.parametrize("value", [True, False, "30", b"30", [30], 1j])
def test_seconds_must_be_a_number(argument: str, value: object) -> None:
    refuses(TypeError, argument, value)


@pytest.mark.parametrize("argument", SECONDS)
@pytest.mark.parametrize("value", [-1, -0.001, math.nan, -math.inf])
def test_seconds_must_not_be_negative_or_nan(argument: str, value: float) -> None:
    refuses(ValueError, argument, value)


@pytest.mark.parametrize("argument", ABOVE_ZERO)
@pytest.mark.parametrize("value", [0, 0.0])
def test_a_time_limit_that_nothing_could_meet_is_refused(argument: str, value: float) -> None:
    refuses(ValueError, argument, value)


@pytest.mark.parametrize("argument", FROM_ZERO)
def test_zero_seconds_are_accepted_where_they_mean_at_once(argument: str) -> None:
    SQLiteConnectionPool(StubDriver(), **{argument: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("argument", [each for each in SECONDS if each != "operation_timeout"])
@pytest.mark.parametrize("never", [None, math.inf])
def test_none_and_infinity_both_mean_never(argument: str, never: float | None) -> None:
    SQLiteConnectionPool(StubDriver(), **{argument: never})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, math.inf])
def test_operation_timeout_must_be_finite(value: float | None) -> None:
    with pytest.raises((TypeError, ValueError), match=f"operation_timeout.*{value!r}"):
        SQLiteConnectionPool(StubDriver(), operation_timeout=value)  # type: ignore[arg-type]


def test_a_number_too_large_for_a_float_means_never() -> None:
    SQLiteConnectionPool(StubDriver(), idle_timeout=10**400)
    with pytest.raises(ValueError, match="operation_timeout"):
        SQLiteConnectionPool(StubDriver(), operation_timeout=10**400)
    with pytest.raises(ValueError, match="idle_timeout"):
        SQLiteConnectionPool(StubDriver(), idle_timeout=-(10**400))


@pytest.mark.parametrize("value", [None, "app.db", 5, object()])
@pytest.mark.parametrize("argument", ["connection_factory", "clock"])
def test_the_factory_and_the_clock_must_be_callable(argument: str, value: object) -> None:
    arguments: dict[str, Any] = {"connection_factory": StubDriver(), argument: value}
    with pytest.raises(TypeError, match=f"{argument}.*{re.escape(repr(value))}"):
        SQLiteConnectionPool(**arguments)


@pytest.mark.parametrize("value", ["PRAGMA foreign_keys = ON", 5, object()])
def test_on_connect_must_be_callable_or_none(value: object) -> None:
    with pytest.raises(TypeError, match=f"on_connect must be callable or None, not {re.escape(repr(value))}"):
        SQLiteConnectionPool(StubDriver(), on_connect=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [5, b"app", True, ["app"]])
def test_a_name_must_be_a_string(name: object) -> None:
    refuses(TypeError, "name", name)


@pytest.mark.parametrize("name", ["\udcff", "caf\udce9.db"])
def test_a_name_that_telemetry_cannot_send_is_refused(name: str) -> None:
    refuses(ValueError, "name", name)


@pytest.mark.parametrize("name", ["", "   ", "\t"])
def test_a_name_must_not_be_blank(name: str) -> None:
    refuses(ValueError, "name", name)


@pytest.mark.parametrize("subscribers", [5, object()])
def test_subscribers_must_be_iterable(subscribers: object) -> None:
    with pytest.raises(TypeError, match=f"subscribers.*{re.escape(repr(subscribers))}"):
        SQLiteConnectionPool(StubDriver(), subscribers=subscribers)  # type: ignore[arg-type]


@pytest.mark.parametrize("subscriber", [5, "recorder", print])
def test_a_subscriber_must_be_able_to_attach(subscriber: object) -> None:
    with pytest.raises(TypeError, match=f"subscriber.*attach.*{re.escape(repr(subscriber))}"):
        SQLiteConnectionPool(StubDriver(), subscribers=[subscriber])  # type: ignore[list-item]


@pytest.mark.parametrize("label", [5, b"GET", True])
def test_a_label_must_be_a_string(label: object) -> None:
    pool = SQLiteConnectionPool(StubDriver())
    with pytest.raises(TypeError, match=f"label.*{re.escape(repr(label))}"):
        pool.connection(label=label)  # type: ignore[arg-type]


def test_the_first_five_parameters_keep_their_order_and_defaults() -> None:
    parameters = list(inspect.signature(SQLiteConnectionPool).parameters.values())
    assert [(each.name, each.default) for each in parameters[:5]] == [
        ("connection_factory", inspect.Parameter.empty),
        ("pool_size", 20),
        ("acquisition_timeout", 30),
        ("idle_timeout", 86400),
        ("operation_timeout", 10),
    ]


def test_all_further_parameters_are_given_by_name() -> None:
    parameters = list(inspect.signature(SQLiteConnectionPool).parameters.values())
    assert {each.kind for each in parameters[5:]} == {inspect.Parameter.KEYWORD_ONLY}


def test_the_further_parameters_have_the_documented_defaults() -> None:
    parameters = inspect.signature(SQLiteConnectionPool).parameters
    assert {name: each.default for name, each in list(parameters.items())[5:]} == {
        "min_size": 0,
        "max_lifetime": None,
        "max_waiting": None,
        "health_check_after": 1.0,
        "leak_threshold": 60,
        "slow_acquire": 0.05,
        "slow_statement": 0.1,
        "read_ahead": 64,
        "on_connect": None,
        "name": None,
        "subscribers": (),
        "clock": time.monotonic,
    }


def test_a_pool_that_was_refused_does_not_warn_when_it_is_collected() -> None:
    with pytest.raises(ValueError, match="pool_size"):
        SQLiteConnectionPool(StubDriver(), 0)
    gc.collect()  # a warning would be an error


def test_construction_does_not_connect() -> None:
    driver = StubDriver()
    SQLiteConnectionPool(driver, min_size=5)
    assert driver.attempts == 0


def test_a_long_label_is_cut_at_200_characters() -> None:
    assert check_label("a" * 200) == "a" * 200
    assert check_label("a" * 100_000) == "a" * 200


async def test_diagnoses_and_events_have_the_cut_label(driver: StubDriver) -> None:
    async with SQLiteConnectionPool(driver, 1) as pool, pool.connection("é" * 201):
        assert [holder.label for holder in pool.holders()] == ["é" * 200]


def test_what_the_package_appends_to_a_name_does_not_count(driver: StubDriver) -> None:
    first, second = SQLiteConnectionPool(driver, name="a" * 200), SQLiteConnectionPool(driver, name="a" * 200)
    assert (first.name, second.name) == ("a" * 200, "a" * 200 + "#2")
