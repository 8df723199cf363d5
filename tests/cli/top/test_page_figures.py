from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from aiosqlitepool.cli.top.endpoint import EndpointError
from aiosqlitepool.cli.top.figures import Held, Percentile, Span
from aiosqlitepool.cli.top.page_figures import PageReading, read_page
from aiosqlitepool.debug import DebugApp

from ...support.pools import StubPool, pool_of, queued
from ...support.serving import served
from ...support.stub import StubDriver

NO_TIMES = {"count": 0, "p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}
TIMES = {"count": 3, "p50": 0.1, "p90": 0.2, "p99": 0.3, "max": 0.4}
COUNTS = dict.fromkeys(("acquire_timeout", "create", "create_fail", "health_fail", "rollback_on_return"), 0)
LEVELS = {"used": 1, "idle": 0, "max_size": 2, "waiting": 0, "oldest_waiter": 0.0, "oldest_checkout": 0.0}


def pool(**figures: Any) -> dict[str, Any]:
    """What a page says of a pool, with the given figures."""
    paths = {"idle": 0, "new": 0, "queued": 0}
    counted = {"acquires": paths, "counts": COUNTS, "wait_times": NO_TIMES, "use_times": NO_TIMES}
    return {"pool": "app.db", **LEVELS, **counted, "holders": [], **figures}


def reading(at: float, *pools: dict[str, Any]) -> PageReading:
    return PageReading(at, {(place, each["pool"]): each for place, each in enumerate(pools)})


async def test_it_reads_what_a_page_says(driver: StubDriver) -> None:
    shown: StubPool
    async with pool_of(driver, 1, leak_threshold=None) as shown, served(DebugApp(shown)) as url:
        async with shown.connection("GET /users"):
            waiter = await queued(shown)
            found = await asyncio.to_thread(read_page, f"{url}/", lambda: 7.0)
        await shown.release(await waiter)
    (figures,) = found.figures()
    (holder,) = figures.holders
    assert found.at == 7.0
    assert (figures.used, figures.idle, figures.max_size, figures.waiting) == (1, 0, 1, 1)
    assert (holder.connection, holder.who, holder.statement, holder.suspected) == (1, "GET /users", None, False)
    assert figures.recent is None


def test_rates_are_what_two_readings_differ_by() -> None:
    before = pool(acquires={"idle": 5, "new": 2, "queued": 0})
    now = pool(acquires={"idle": 8, "new": 2, "queued": 1}, wait_times=TIMES)
    (figures,) = reading(12.0, now).figures(reading(10.0, before))
    assert figures.recent == Span(2.0, 3, 0, 1, Percentile(0.1), Percentile(0.3), None, 0, 0, 0, 0)
    assert figures.total == Span(None, 8, 2, 1, None, None, None, 0, 0, 0, 0)


def test_after_a_restart_it_counts_from_nothing() -> None:
    before, now = (pool(counts={**COUNTS, "create": created, "create_fail": 1}) for created in (9, 2))
    (figures,) = reading(12.0, now).figures(reading(10.0, before))
    assert figures.recent is not None
    assert (figures.recent.creates, figures.recent.failures) == (2, 0)


def test_a_pool_that_was_not_there_before_has_no_rates() -> None:
    figures = reading(12.0, pool(), pool(pool="new")).figures(reading(10.0, pool()))
    assert [each.recent is None for each in figures] == [False, True]


def test_a_reading_of_the_same_moment_gives_no_rates() -> None:
    (figures,) = reading(10.0, pool()).figures(reading(10.0, pool()))
    assert figures.recent is None


@pytest.mark.parametrize(
    ("named", "who"),
    [
        ({"label": "GET /", "coroutine": "get"}, "GET /"),
        ({"label": None, "coroutine": "get"}, "get"),
        ({"label": None}, "Task-1"),
    ],
)
def test_a_holder_is_named_by_its_label_its_coroutine_or_its_task(named: dict[str, Any], who: str) -> None:
    held = {"connection": 3, "task": "Task-1", "held": 2.5, "suspected": True, "statement": "SELECT ?", **named}
    (figures,) = reading(1.0, pool(holders=[held])).figures()
    assert figures.holders == (Held(3, who, 2.5, "SELECT ?", True),)


@pytest.mark.parametrize(
    "data",
    [{}, [], {"pools": [{}]}, {"pools": [pool(used="1")]}, {"pools": [pool(holders=[7])]}, {"pools": [pool(pool=1)]}],
    ids=["nothing", "a list", "no figure", "a text", "no holder", "no name"],
)
def test_json_that_is_of_no_use_is_an_error(says: Callable[..., str], data: Any) -> None:
    url = says((200, "application/json", json.dumps(data).encode())).removesuffix("metrics")
    with pytest.raises(EndpointError, match="returned JSON without the state of pools"):
        read_page(url)


def test_a_reading_has_the_time_of_its_clock(says: Callable[..., str]) -> None:
    url = says((200, "application/json", json.dumps({"pools": [pool()]}).encode())).removesuffix("metrics")
    clock = count(1.0).__next__
    assert [read_page(url, clock).at for _ in range(2)] == [1.0, 2.0]
