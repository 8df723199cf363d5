"""Who wants which fact, and what happens when a listener misbehaves. Knows events, nothing of pools."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

from .events import (
    AcquirePath,
    ConnectionAcquired,
    ConnectionReleased,
    ErrorInfo,
    PoolEvent,
    SubscriberFailed,
    event_types,
)

__all__ = ["Detach", "EventBus", "Handler", "log"]

E = TypeVar("E", bound=PoolEvent)
Handler = Callable[[E], object]
Detach = Callable[[], None]
# A handler, and what it raised.
Failure = tuple[Callable[..., object], BaseException]

log: logging.Logger = logging.getLogger("aiosqlitepool")

# One broken handler on a busy pool would otherwise write thousands of tracebacks a second.
LOG_INTERVAL = 10.0


class EventBus:
    """Delivers each event, synchronously, to the handlers of its type, in the order they subscribed.

    `handlers` maps an event type to its handlers and holds no empty entry, so `SomeEvent in bus.handlers` is
    the whole guard before an event is built: an event nobody wants is never made. `errors` counts how often a handler
    raised, `acquired_at_once` how many connections were lent without a wait: too many to tell each to whoever counts.
    """

    __slots__ = (
        "_clock",
        "_silenced",
        "acquired_at_once",
        "acquired_from",
        "errors",
        "handlers",
        "use_handlers",
        "wait_handlers",
    )

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        # Tuples, replaced and never mutated: a handler may subscribe or unsubscribe while events are delivered.
        self.handlers: dict[type[PoolEvent], tuple[Handler[Any], ...]] = {}
        # Called with how long each connection was waited for, or was out: most who watch want nothing else of them.
        self.wait_handlers: tuple[Callable[[AcquirePath, float], object], ...] = ()
        self.use_handlers: tuple[Callable[[float], object], ...] = ()
        # How long an acquire takes at least, in seconds, that somebody wants to be told of in an event.
        self.acquired_from: float = math.inf
        self.errors: int = 0
        self.acquired_at_once: int = 0
        self._clock = clock
        # By the identity of a handler that fails: when that may be logged again, and how often it was not.
        self._silenced: dict[int, tuple[float, int]] = {}

    def subscribe(
        self, event_type: type[E], handler: Handler[E], *, exact: bool = False, at_least: float = 0.0
    ) -> Detach:
        """Call `handler(event)` for every later event of this type, and of its subclasses unless `exact`.

        `PoolEvent` is the parent of all. Returns a function that ends it, safe to call twice. The handler must be
        synchronous; what it raises is logged and counted, never seen by the pool. With `at_least`, in seconds, a
        handler of `ConnectionAcquired` is told exactly of those that took as long, or for which a connection was
        opened; if nobody wants the others, their events are never made. Raises `TypeError` for anything but an event
        type and a callable, `ValueError` for `at_least` with another type.
        """
        if not (isinstance(event_type, type) and issubclass(event_type, PoolEvent)):
            raise TypeError(f"event_type must be PoolEvent or one of its subclasses, not {event_type!r}")
        _check_handler(handler)
        told: Handler[Any] = handler
        if at_least:
            if event_type is not ConnectionAcquired:
                raise ValueError(f"at_least={at_least!r} is for ConnectionAcquired, not {event_type.__name__}")
            if not at_least > 0:
                raise ValueError(f"at_least must be a number of seconds, not negative: {at_least!r}")
            told, exact = _OfSlow(handler, at_least), True
        wanted = _types_of(event_type, exact)
        for kind in wanted:
            self.handlers[kind] = (*self.handlers.get(kind, ()), told)
        self._note_threshold()
        return _once(lambda: self._remove(wanted, told))

    def subscribe_waits(self, handler: Callable[[AcquirePath, float], object]) -> Detach:
        """Call `handler(path, wait_time)` at every later acquire that did not get a connection at once.

        That is a `ConnectionAcquired` without the event, and otherwise as `subscribe()`.
        """
        return self._subscribe_times("wait_handlers", handler)

    def subscribe_uses(self, handler: Callable[[float], object]) -> Detach:
        """Call `handler(use_time)` at every later release: a `ConnectionReleased` without the event, at half the price.

        Otherwise as `subscribe()`.
        """
        return self._subscribe_times("use_handlers", handler)

    def _subscribe_times(self, handlers: str, handler: Callable[..., object]) -> Detach:
        _check_handler(handler)
        setattr(self, handlers, (*getattr(self, handlers), handler))

        def remove() -> None:
            setattr(self, handlers, _without(handler, getattr(self, handlers)))
            self._silenced.pop(id(handler), None)

        return _once(remove)

    def _remove(self, wanted: tuple[type[PoolEvent], ...], handler: Handler[Any]) -> None:
        for kind in wanted:
            if rest := _without(handler, self.handlers[kind]):
                self.handlers[kind] = rest
            else:
                del self.handlers[kind]
        self._note_threshold()
        self._silenced.pop(id(handler), None)

    def _note_threshold(self) -> None:
        told = self.handlers.get(ConnectionAcquired, ())
        thresholds = (each.at_least if isinstance(each, _OfSlow) else 0.0 for each in told)
        self.acquired_from = min(thresholds, default=math.inf)

    def emit(self, event: PoolEvent) -> None:
        """Hand the event to everyone who wants its type. Never raises."""
        failures: tuple[Failure, ...] = ()
        for handler in self.handlers.get(type(event), ()):
            try:
                handler(event)
            except BaseException as error:
                self._failed(handler, event, error)
                failures = (*failures, (handler, error))
        if self.use_handlers and isinstance(event, ConnectionReleased):
            self.told_failed(self.emit_times(self.use_handlers, event.use_time), event)
        elif self.wait_handlers and type(event) is ConnectionAcquired:
            self.told_failed(self.emit_times(self.wait_handlers, event.path, event.wait_time), event)
        if failures:
            self._tell_failures(failures, event)

    @staticmethod
    def emit_times(handlers: tuple[Callable[..., object], ...], *times: Any) -> tuple[Failure, ...]:
        """Tell the `wait_handlers` or the `use_handlers`, as `emit()` of the event does, too. Never raises.

        Returns what failed, for `told_failed()`.
        """
        failures: tuple[Failure, ...] = ()
        for handler in handlers:
            try:
                handler(*times)
            except BaseException as error:
                failures = (*failures, (handler, error))
        return failures

    def told_failed(self, failures: tuple[Failure, ...], event: PoolEvent) -> None:
        """Count, log and tell what failed at the acquire or release that this event would have told of."""
        for handler, error in failures:
            self._failed(handler, event, error)
        self._tell_failures(failures, event)

    def _tell_failures(self, failures: tuple[Failure, ...], event: PoolEvent) -> None:
        # A failure to hear of a failure is counted and logged, and told to nobody: that could go on for ever.
        if not isinstance(event, SubscriberFailed):
            for failed, why in failures:
                told = SubscriberFailed(event.pool, event.name, repr(failed), ErrorInfo.of(why))
                self._tell_the_others(failed, told)

    def _tell_the_others(self, failed: Handler[Any], failure: SubscriberFailed) -> None:
        # Not the one that failed: whoever raises at everything would be counted twice for each.
        for handler in self.handlers.get(SubscriberFailed, ()):
            if handler is not failed:
                try:
                    handler(failure)
                except BaseException as error:
                    self._failed(handler, failure, error)

    def _failed(self, handler: Handler[Any], event: PoolEvent, error: BaseException) -> None:
        self.errors += 1
        self._log(handler, event, error)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            _raise_in_loop(error)

    def _log(self, handler: Handler[Any], event: PoolEvent, error: BaseException) -> None:
        now = self._clock()
        quiet_until, left_out = self._silenced.get(id(handler), (now, 0))
        if now < quiet_until:
            self._silenced[id(handler)] = (quiet_until, left_out + 1)
            return
        # It may have unsubscribed itself before it raised.
        told = (*self.handlers.get(type(event), ()), *self.wait_handlers, *self.use_handlers)
        if any(each is handler for each in told):
            self._silenced[id(handler)] = (now + LOG_INTERVAL, 0)
        more = f" ({left_out} more failures of this handler were not logged)" if left_out else ""
        log.error("subscriber %r failed on %r%s", handler, event.name, more, exc_info=error)


class _OfSlow:
    """A handler of `ConnectionAcquired` that is not told of those that took less time and opened no connection."""

    __slots__ = ("_handler", "at_least")

    def __init__(self, handler: Handler[Any], at_least: float) -> None:
        self._handler = handler
        self.at_least = at_least

    def __call__(self, event: Any) -> None:
        if event.wait_time >= self.at_least or event.create_time:
            self._handler(event)

    def __repr__(self) -> str:
        return repr(self._handler)


def _check_handler(handler: object) -> None:
    if not callable(handler):
        raise TypeError(f"handler must be callable, not {handler!r}")
    if inspect.iscoroutinefunction(handler):
        raise TypeError(f"handler must be synchronous; nobody would await {handler!r}")


def _once(detach: Detach) -> Detach:
    """Do it at the first call only."""
    left = [detach]
    return lambda: left.pop()() if left else None


def _without(handler: object, handlers: tuple[Any, ...]) -> tuple[Any, ...]:
    # Once only: a handler subscribed twice and detached once is still there.
    gone = next(index for index, each in enumerate(handlers) if each is handler)
    return handlers[:gone] + handlers[gone + 1 :]


def _types_of(event_type: type[PoolEvent], exact: bool) -> tuple[type[PoolEvent], ...]:
    children = () if exact else tuple(kind for kind in event_types() if issubclass(kind, event_type))
    itself = () if event_type is PoolEvent or event_type in children else (event_type,)
    return (*children, *itself)


def _raise_in_loop(error: BaseException) -> None:
    """Let Ctrl-C or sys.exit() inside a handler end the program, but from the loop, not from inside the pool."""

    def reraise() -> None:
        raise error

    try:
        asyncio.get_running_loop().call_soon(reraise)
    except RuntimeError:
        # No loop runs, so no pool is in the middle of anything.
        reraise()
