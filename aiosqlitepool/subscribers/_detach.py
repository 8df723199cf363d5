"""Many subscriptions that end as one. Knows no telemetry library."""

from __future__ import annotations

from collections.abc import Callable, Iterable

__all__ = ["Detach", "together"]

Detach = Callable[[], None]


def together(detaches: Iterable[Detach]) -> Detach:
    """A function that calls each of these, in order."""
    every = tuple(detaches)

    def detach() -> None:
        for each in every:
            each()

    return detach
