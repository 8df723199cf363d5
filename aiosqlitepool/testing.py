"""For tests of programs that use a pool: a subscriber that records events in a list."""

from __future__ import annotations

from typing import Any, TypeVar

from .bus import Detach
from .events import PoolEvent
from .pool.pool import SQLiteConnectionPool

__all__ = ["Recorder"]

E = TypeVar("E", bound=PoolEvent)


class Recorder(list[PoolEvent]):
    """Records every event of the pools that it is attached to, in order.

    Attach it with `pool.subscribe(recorder)` or `SQLiteConnectionPool(..., subscribers=[recorder])`, and read the list.
    """

    def attach(self, pool: SQLiteConnectionPool[Any], /) -> Detach:
        """Record the later events of `pool`. Returns a function that ends it."""
        return pool.events.subscribe(PoolEvent, self.append)

    @property
    def names(self) -> list[str]:
        """The names of the recorded events, in order."""
        return [event.name for event in self]

    def of(self, event_type: type[E]) -> list[E]:
        """The recorded events of one type, in order."""
        return [event for event in self if isinstance(event, event_type)]
