"""A clock that stands still until told otherwise."""

from __future__ import annotations


class Clock:
    """Passed to a pool as `clock`; `advance` is the only thing that moves it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
