"""What a pool was asked to be: every argument checked once, at construction, by name and value."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "LONGEST_NAME",
    "OnConnect",
    "MOST_CONNECTIONS",
    "PoolSettings",
    "check_count",
    "check_label",
    "check_name",
    "check_timeout",
    "finite",
]

OnConnect = Callable[[Any], Awaitable[Any]]

# Each connection is a thread, and slots are made at once; a number beyond this is a mistake.
MOST_CONNECTIONS = 10_000

# Characters of the name of a pool, and of a label: both are in every record and series of theirs.
LONGEST_NAME = 200
# What the package appends to names: the roles of a database's pools, and a number where a name is in use.
_APPENDED = re.compile(r"(?:#\d+)?(?:/(?:read|write))?(?:#\d+)?\Z")

# Pools without a name are numbered in the order of their making: the same in every run of a program.
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """The checked arguments of a pool. Seconds are floats; infinity means "never" or "no limit", as `None` does before.

    Raises `TypeError` or `ValueError` naming the argument and its value.
    """

    pool_size: int
    acquisition_timeout: float
    idle_timeout: float
    operation_timeout: float
    min_size: int
    max_lifetime: float
    max_waiting: int | None
    health_check_after: float
    leak_threshold: float
    slow_acquire: float
    slow_statement: float
    read_ahead: int
    on_connect: OnConnect | None
    clock: Callable[[], float]
    name: str

    def __post_init__(self) -> None:
        if not callable(self.clock):
            raise TypeError(f"clock must be callable, not {self.clock!r} ({type(self.clock).__name__})")
        if self.on_connect is not None and not callable(self.on_connect):
            kind = type(self.on_connect).__name__
            raise TypeError(f"on_connect must be callable or None, not {self.on_connect!r} ({kind})")
        check_count("pool_size", self.pool_size, least=1, most=MOST_CONNECTIONS)
        check_count("min_size", self.min_size, least=0)
        if self.min_size > self.pool_size:
            raise ValueError(f"min_size must be at most pool_size ({self.pool_size}), not {self.min_size}")
        check_count("read_ahead", self.read_ahead, least=0)
        if self.max_waiting is not None:
            check_count("max_waiting", self.max_waiting, least=0)
        for name in ("acquisition_timeout", "idle_timeout", "health_check_after", "slow_acquire", "slow_statement"):
            self._set(name, check_timeout(name, getattr(self, name)))
        given = self.operation_timeout
        for name in ("operation_timeout", "max_lifetime", "leak_threshold"):
            self._set(name, check_timeout(name, getattr(self, name), positive=True))
        if math.isinf(self.operation_timeout):
            raise ValueError(f"operation_timeout must be a finite number of seconds, not {given!r}")
        if self.min_size and self.idle_timeout == 0:
            raise ValueError(f"idle_timeout must be greater than 0 seconds with min_size={self.min_size}, not 0")
        self._set("name", f"pool-{next(_numbers)}" if self.name is None else check_name(self.name))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def check_count(name: str, value: object, *, least: int, most: int | None = None) -> int:
    """Return `value` if it is an int from `least` to `most`; a bool is no number here."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r} ({type(value).__name__})")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, not {value!r}")
    return value


def check_flag(name: str, value: object) -> bool:
    """Return `value` if it is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r} ({type(value).__name__})")
    return value


def check_timeout(name: str, value: object, *, positive: bool = False) -> float:
    """Return `value` as float seconds, `None` as infinity; a bool is no number here."""
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r} ({type(value).__name__})")
    try:
        seconds = float(value)
    except OverflowError:  # an int beyond all floats
        seconds = math.inf if value > 0 else -math.inf
    if math.isnan(seconds) or seconds < 0 or (positive and seconds == 0):
        bound = "greater than 0" if positive else "0 or more"
        raise ValueError(f"{name} must be {bound} seconds, not {value!r}")
    return seconds


def finite(seconds: float) -> float | None:
    """Return these seconds, `None` for infinity."""
    return None if math.isinf(seconds) else seconds


def check_name(name: object) -> str:
    """Return `name` if it is a string with something to see, of characters that telemetry can send."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a str or None, not {name!r} ({type(name).__name__})")
    if not name.strip():
        raise ValueError(f"name must have at least one visible character, not {name!r}")
    if (length := len(_APPENDED.sub("", name))) > LONGEST_NAME:
        raise ValueError(f"name must have at most {LONGEST_NAME} characters, not {length}: {name[:50]!r}...")
    try:
        name.encode()
    except UnicodeEncodeError:  # one such label makes a whole scrape fail, also of what others show
        raise ValueError(f"name must have characters of UTF-8 only, not {name!r}") from None
    return name


def check_label(label: object) -> str | None:
    """Return `label`, cut at 200 characters, if it is a string or `None`."""
    if label is None:
        return None
    if not isinstance(label, str):
        raise TypeError(f"label must be a str or None, not {label!r} ({type(label).__name__})")
    return label if len(label) <= LONGEST_NAME else label[:LONGEST_NAME]
