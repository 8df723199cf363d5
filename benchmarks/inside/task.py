"""What a worker is asked to measure, and what it answers. Plain data; knows neither contenders nor workloads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

__all__ = ["Measured", "Task", "UnsuitableError"]


class UnsuitableError(Exception):
    """This contender cannot take part in this workload, by its nature; the message says why."""


@dataclass(frozen=True, slots=True)
class Task:
    """One round of one case of one workload. All contenders get the same one, so the same keys in the same order."""

    workload: str
    case: str
    round: int
    database: str
    """Path of the data set; a workload may write to it what leaves its rows as they were."""
    scratch: str
    """A directory of this round's own, empty."""
    users: int
    posts: int
    regime: str = ""
    """How many cores to run on: one of `cores.REGIMES`, or "" for all."""
    effort: float = 1.0
    """Which part of the full number of requests to send."""
    member: int = 0
    """Which of a workload's own processes is to do it, from 1; 0 for the one that measures."""
    import_seconds: float = 0.0
    """How long importing the contender took, filled in by the worker."""

    @property
    def authors(self) -> int:
        """How many users write posts: the first ones, ten posts each."""
        return max(1, self.posts // 10)

    def count(self, full: float, least: int = 1) -> int:
        """`full`, cut down by `effort`."""
        return max(least, round(full * self.effort))

    def keys(self, below: int, count: int) -> list[int]:
        """So many keys from 1 to `below`, the same for everybody in this round."""
        return Random(self.round).choices(range(1, below + 1), k=count)


@dataclass(slots=True)
class Measured:
    """What one round came to: figures by name, and the latency of every request in seconds where there are any."""

    figures: dict[str, float]
    latencies: Sequence[float] = field(default_factory=list)
