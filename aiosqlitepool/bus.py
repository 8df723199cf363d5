"""Who wants which fact, and what happens when a listener misbehaves. Knows events, nothing of pools."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from .events import PoolEvent, event_types

__all__ = ["Detach", "EventBus", "Handler", "log"]

E = TypeVar("E", bound=PoolEvent)
Handler = Callable[[E], object]
Detach = Callable[[], None]

log = logging.getLogger("aiosqlitepool")

# One broken handler on a busy pool would otherwise write thousands of tracebacks a second.
LOG_INTERVAL = 10.0


class EventBus:
    """Delivers each event, synchronously, to the handlers of its type, in the order they subscribed.

    `handlers` maps an event type to its handlers and holds no empty entry, so `SomeEvent in bus.handlers` is
    the whole guard before an event is built: an event nobody wants is never made.
    """

    __slots__ = ("_clock", "_silenced", "errors", "handlers")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        # Tuples, replaced and never mutated: a handler may subscribe or unsubscribe while events are delivered.
        self.handlers: dict[type[PoolEvent], tuple[Handler[Any], ...]] = {}
        self.errors = 0
        self._clock = clock
        # handler -> (when its failures may be logged again, how many were not)
        self._silenced: dict[Handler[Any], tuple[float, int]] = {}

    def subscribe(self, event_type: type[E], handler: Handler[E]) -> Detach:
        """Call `handler(event)` for every later event of this type; for all of them if it is `PoolEvent`.

        Returns a function that ends it, safe to call twice. The handler must be synchronous; what it raises is
        logged and counted, never seen by the pool. Raises `TypeError` for anything but an event type and a callable.
        """
        if not (isinstance(event_type, type) and issubclass(event_type, PoolEvent)):
            raise TypeError(f"event_type must be PoolEvent or one of its subclasses, not {event_type!r}")
        if not callable(handler):
            raise TypeError(f"handler must be callable, not {handler!r}")
        if inspect.iscoroutinefunction(handler):
            raise TypeError(f"handler must be synchronous; nobody would await {handler!r}")
        wanted = event_types() if event_type is PoolEvent else (event_type,)
        # An object of its own, so that subscribing one handler twice and detaching once leaves one.
        entry: Handler[Any] = partial(handler)
        for kind in wanted:
            self.handlers[kind] = (*self.handlers.get(kind, ()), entry)
        return lambda: self._remove(wanted, entry)

    def _remove(self, wanted: tuple[type[PoolEvent], ...], entry: Handler[Any]) -> None:
        for kind in wanted:
            rest = tuple(other for other in self.handlers.get(kind, ()) if other is not entry)
            if rest:
                self.handlers[kind] = rest
            else:
                self.handlers.pop(kind, None)
        self._silenced.pop(entry, None)

    def emit(self, event: PoolEvent) -> None:
        """Hand the event to everyone who wants its type. Never raises."""
        for handler in self.handlers.get(type(event), ()):
            try:
                handler(event)
            except (KeyboardInterrupt, SystemExit) as error:
                self._failed(handler, event, error)
                _raise_in_loop(error)
            except BaseException as error:
                self._failed(handler, event, error)

    def _failed(self, handler: Handler[Any], event: PoolEvent, error: BaseException) -> None:
        self.errors += 1
        now = self._clock()
        quiet_until, left_out = self._silenced.get(handler, (now, 0))
        if now < quiet_until:
            self._silenced[handler] = (quiet_until, left_out + 1)
            return
        if handler in self.handlers.get(type(event), ()):  # it may have unsubscribed itself before it raised
            self._silenced[handler] = (now + LOG_INTERVAL, 0)
        more = f" ({left_out} more failures of this handler were not logged)" if left_out else ""
        log.error("subscriber %r failed on %r%s", handler, event.name, more, exc_info=error)


def _raise_in_loop(error: BaseException) -> None:
    """Let Ctrl-C or sys.exit() inside a handler end the program, but from the loop, not from inside the pool."""

    def reraise() -> None:
        raise error

    try:
        asyncio.get_running_loop().call_soon(reraise)
    except RuntimeError:
        # No loop runs, so no pool is in the middle of anything.
        reraise()
