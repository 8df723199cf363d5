"""Read the statements of pools from the JSON of a debug page, and sort them."""

from __future__ import annotations

import json
import math
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from aiosqlitepool import StatementStats

from .endpoint import EndpointError, fetch, parts_of

__all__ = ["SORTS", "PoolStatements", "Reading", "page_url", "read"]

_EXAMPLE = "http://127.0.0.1:8000/debug/pool/"
_PASS = f"pass the URL at which aiosqlitepool.debug.DebugApp is mounted, like {_EXAMPLE}"

# What `--sort` can name, and the field that it means; the largest comes first.
SORTS = {"total": "run_total", "mean": "run_mean", "p99": "run_p99", "calls": "calls", "rows": "rows"}


@dataclass(frozen=True)
class PoolStatements:
    """The statements of one pool, the longest total run time first, and how many others it has forgotten."""

    pool: str
    statements: tuple[StatementStats, ...]
    forgotten: int

    def sorted_by(self, sort: str) -> tuple[StatementStats, ...]:
        """Return the statements sorted by a key of `SORTS`, the largest first."""
        return tuple(sorted(self.statements, key=attrgetter(SORTS[sort]), reverse=True))


@dataclass(frozen=True)
class Reading:
    """The statements of every pool of a page at one moment, `at` by `time.monotonic()` and `now` as a Unix time."""

    at: float
    now: float
    pools: tuple[PoolStatements, ...]


def page_url(text: str) -> str:
    """Return the URL of a debug page, also if `text` is that of its JSON. Raises `ValueError` if it is no address."""
    parts = parts_of(text, _EXAMPLE)
    path = parts.path.removesuffix("data.json").rstrip("/")
    return urllib.parse.urlunsplit(parts._replace(path=f"{path}/", fragment=""))


def read(url: str, clock: Callable[[], float] = time.monotonic) -> Reading:
    """Read the statements from the page at `url`. Raises `EndpointError` if that fails or is no such page."""
    parts = urllib.parse.urlsplit(url)
    query = f"{parts.query}&statements" if parts.query else "statements"
    asked = urllib.parse.urlunsplit(parts._replace(path=f"{parts.path}data.json", query=query))
    kind, text = fetch(asked, "application/json", f"; {_PASS}")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EndpointError(f"{url} {_described(kind, text)}: {_PASS}") from error
    try:
        return Reading(clock(), _number(data["at"]), tuple(_pool(pool) for pool in data["pools"]))
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise EndpointError(f"{url} returned JSON without the statements of pools ({error!r}): {_PASS}") from error


def _described(kind: str, text: str) -> str:
    if "# TYPE " in text or "# HELP " in text:
        return "serves Prometheus metrics, and --statements reads a debug page"
    return f"returned no JSON of a debug page, but {kind or 'content of unknown type'}"


# -- what another program has sent


def _pool(data: Any) -> PoolStatements:
    rows = tuple(_row(row) for row in data["statements"])
    return PoolStatements(_text(data["pool"]), rows, int(_number(data["statements_forgotten"])))


def _row(data: Any) -> StatementStats:
    return StatementStats(**{name: kind(data[name]) for name, kind in _KINDS.items()})


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} instead of a text")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{type(value).__name__} instead of a finite number")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(each) for each in value)


_KINDS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("statement", "operation"), _text),
    **dict.fromkeys(("calls", "errors", "rows", "rows_changed", "inline", "retried"), _number),
    **dict.fromkeys(("run_total", "run_mean", "run_max", "run_p99"), _number),
    **dict.fromkeys(("wait_total", "wait_mean", "wait_max", "wait_p99"), _number),
    **dict.fromkeys(("first_seen", "last_seen"), _number),
    **dict.fromkeys(("labels", "plan"), _texts),
}
