"""Read the JSON of a debug page, and check the values that another program has sent. Knows no figure of it."""

from __future__ import annotations

import json
import math
import urllib.parse
from collections.abc import Callable
from typing import Any, TypeVar

from .endpoint import EndpointError, fetch, parts_of

__all__ = ["number", "page_url", "read_json", "text"]

T = TypeVar("T")

_EXAMPLE = "http://127.0.0.1:8000/debug/pool/"
_PASS = f"pass the URL at which aiosqlitepool.debug.DebugApp is mounted, like {_EXAMPLE}"


def page_url(given: str) -> str:
    """Return the URL of a debug page, also if `given` is that of its JSON. Raises `ValueError` if it is no address."""
    parts = parts_of(given, _EXAMPLE)
    path = parts.path.removesuffix("data.json").rstrip("/")
    return urllib.parse.urlunsplit(parts._replace(path=f"{path}/", fragment=""))


def read_json(url: str, query: str, parse: Callable[[Any], T]) -> T:
    """Read the JSON of the page at `url`, with `query` added to its own, and parse it.

    Raises `EndpointError` if that fails, also for what `parse` raises because something is missing or of a wrong type.
    """
    parts = urllib.parse.urlsplit(url)
    both = "&".join(filter(None, (parts.query, query)))
    asked = urllib.parse.urlunsplit(parts._replace(path=f"{parts.path}data.json", query=both))
    kind, answer = fetch(asked, "application/json", f"; {_PASS}")
    try:
        data = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise EndpointError(f"{url} {_described(kind, answer)}: {_PASS}") from error
    try:
        return parse(data)
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
        about = "statements" if query else "state"
        raise EndpointError(f"{url} returned JSON without the {about} of pools ({error!r}): {_PASS}") from error


def _described(kind: str, answer: str) -> str:
    if "# TYPE " in answer or "# HELP " in answer:
        return "serves Prometheus metrics, and --statements reads a debug page"
    return f"returned no JSON of a debug page, but {kind or 'content of unknown type'}"


def text(value: Any) -> str:
    """Return the value if it is a text. Raises `TypeError` otherwise."""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} instead of a text")
    return value


def number(value: Any) -> float:
    """Return the value if it is a finite number. Raises `TypeError` otherwise."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{type(value).__name__} instead of a finite number")
    return value
