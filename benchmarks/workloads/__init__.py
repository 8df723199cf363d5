"""What is measured: one file each, found by being here.

A file's docstring opens with what its section in the report says of it; its `workload` says which cases there are, how
one is measured, and which figures come of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..contenders import Contender
from ..inside.cores import REGIMES
from ..inside.task import Measured, Task

__all__ = ["LOAD", "STALL", "Figure", "Workload", "named"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that a round comes to, and how it is shown."""

    name: str
    title: str
    digits: int = 0
    better: Literal["higher", "lower"] = "lower"


@dataclass(frozen=True, slots=True)
class Workload:
    """Something to measure about every contender that can do it."""

    title: str
    cases: Mapping[str, Any]
    """What varies, by what it is called in the report; the value is handed to `measure`."""
    measure: Callable[[Any, Any, Task], Awaitable[Measured]]
    """Called with a contender that is not open, the case's value, and the task; closes what it opens."""
    figures: tuple[Figure, ...]
    """What is shown of it. The first is the one that ratios are made of."""
    reference: str = "floor"
    """The contender that ratios are taken to."""
    threads: bool = False
    """Whether its load runs statements in threads. Then it is measured in every regime, for the regime decides."""
    contenders: tuple[str, ...] = ()
    """Who takes part, of those who want to; () is everybody."""
    fresh: bool = False
    """Whether each round needs a new process."""
    seconds: float = 1.0
    """About how long a round takes at full size, to tell how long the rest will take."""

    def invites(self, contender: str) -> bool:
        """Whether this contender may take part."""
        return not self.contenders or contender in self.contenders

    def regimes(self, wanted: Collection[str]) -> tuple[str, ...]:
        """Those of `wanted` to measure it in; "", which is on all cores, if it has no threads to place."""
        return tuple(regime for regime in REGIMES if regime in wanted) if self.threads else ("",)


STALL = Figure("stall", "longest stall, ms", 1)
"""How late a callback of the same loop was at most, which was due every 2 ms."""

LOAD = (
    Figure("rate", "requests/s", better="higher"),
    Figure("average", "average, ms", 2),
    Figure("median", "median, ms", 2),
    Figure("p90", "P90, ms", 2),
    Figure("p99", "P99, ms", 2),
    STALL,
    Figure("cpu", "CPU, µs each"),
    Figure("later", "later, µs each", 1),
)
"""The figures of requests sent through workers, CPU being that of all the process's threads, for each request; "later"
is what collecting metrics takes afterwards, of what was put off until then."""


def named(case: str, regime: str) -> str:
    """What a case in a regime is called in results, tables and claims."""
    return f"{case}, {regime}" if regime else case


def takes_factory(contender: Contender) -> bool:
    """Whether it can be made to lend something else than connections to a file."""
    return hasattr(contender, "open_with")
