"""Compute figures from the JSON of a debug page, as `figures` does from metrics, and with the holders."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .figures import Held, Percentile, PoolFigures, Span
from .page import number, read_json, text

__all__ = ["PageReading", "read_page"]

_FAILURES = ("create_fail", "health_fail")


@dataclass(frozen=True)
class PageReading:
    """The pools of a page at one moment, `at` by `time.monotonic()`: their data by place on the page and name."""

    at: float
    pools: Mapping[tuple[int, str], Any]

    def figures(self, before: PageReading | None = None) -> list[PoolFigures]:
        """Return the figures of each pool, in the order of the page; rates need the reading before."""
        return [_figures(pool, key, self.at, before) for key, pool in self.pools.items()]


def read_page(url: str, clock: Callable[[], float] = time.monotonic) -> PageReading:
    """Read the pools from the page at `url`. Raises `EndpointError` if that fails or is no such page."""

    def pools(data: Any) -> PageReading:
        found = {(place, text(pool["pool"])): pool for place, pool in enumerate(data["pools"])}
        reading = PageReading(clock(), found)
        reading.figures()  # raises if a figure is missing or no number
        return reading

    return read_json(url, "", pools)


def _figures(pool: Any, key: tuple[int, str], at: float, before: PageReading | None) -> PoolFigures:
    earlier = None if before is None or at <= before.at else before.pools.get(key)
    return PoolFigures(
        key[1],
        int(number(pool["used"])),
        int(number(pool["idle"])),
        int(number(pool["max_size"])),
        int(number(pool["waiting"])),
        number(pool["oldest_waiter"]),
        number(pool["oldest_checkout"]),
        None if earlier is None or before is None else _span(pool, earlier, at - before.at),
        _span(pool, None, None),
        tuple(_held(holder) for holder in pool["holders"]),
    )


def _span(pool: Any, earlier: Any, seconds: float | None) -> Span:
    """Return the counts of a span. The percentiles of a page are those of the last minute, of no other span."""

    def increase(group: str, *names: str) -> float:
        now = sum(number(pool[group][name]) for name in names)
        then = 0.0 if earlier is None else sum(number(earlier[group][name]) for name in names)
        return now - then if now >= then else now  # the program was restarted

    def percentile(times: str, name: str) -> Percentile | None:
        found = pool[times]
        return Percentile(number(found[name])) if seconds is not None and found["count"] else None

    return Span(
        seconds,
        idle=increase("acquires", "idle"),
        new=increase("acquires", "new"),
        queued=increase("acquires", "queued"),
        wait_p50=percentile("wait_times", "p50"),
        wait_p99=percentile("wait_times", "p99"),
        hold_p99=percentile("use_times", "p99"),
        timeouts=increase("counts", "acquire_timeout"),
        creates=increase("counts", "create"),
        failures=increase("counts", *_FAILURES),
        rollbacks=increase("counts", "rollback_on_return"),
    )


def _held(holder: Any) -> Held:
    statement = holder.get("statement")
    return Held(
        int(number(holder["connection"])),
        text(holder["label"] or holder.get("coroutine") or holder["task"]),
        number(holder["held"]),
        None if statement is None else text(statement),
        bool(holder["suspected"]),
    )
