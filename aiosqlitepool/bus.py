"""Who wants which fact, and what happens when a listener misbehaves. Knows events, nothing of pools."""

from __future__ import annotations

import contextlib
import inspect
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar, get_args

from .events import (
    AcquirePath,
    ConnectionAcquired,
    ConnectionReleased,
    ErrorInfo,
    PoolEvent,
    SubscriberFailed,
    TimesNoted,
    event_types,
)
from .failures import FailureLog, raise_in_loop

__all__ = ["PLENTY", "Detach", "EventBus", "Handler"]

E = TypeVar("E", bound=PoolEvent)
Handler = Callable[[E], object]
Detach = Callable[[], None]
# A handler, and what it raised.
Failure = tuple[Handler[Any], BaseException]

# How many times are noted before they are told: fewer would cost more for each, more would hold up the loop for longer.
PLENTY: Final = 64
# Seconds between two acquires that are told as samples. An export, every ten seconds or more, shows a few of them.
SAMPLE_INTERVAL: Final = 0.01


class EventBus:
    """Delivers each event, synchronously, to the handlers of its type, in the order they subscribed.

    `handlers` maps an event type to its handlers and holds no empty entry, so `SomeEvent in bus.handlers` is
    the whole guard before an event is built: an event nobody wants is never made. `acquired_at_once` counts how many
    connections were lent without a wait: too many to tell each to whoever counts.
    """

    __slots__ = (
        "_clock",
        "_failures",
        "_pool",
        "_telling",
        "_told_at_once",
        "acquired_at_once",
        "acquired_from",
        "ended",
        "handlers",
        "sample_at",
        "uses",
        "waits",
        "wants_holders",
        "wants_times",
    )

    def __init__(self, clock: Callable[[], float] = time.monotonic, pool: str = "") -> None:
        # Tuples, replaced and never mutated: a handler may subscribe or unsubscribe while events are delivered.
        self.handlers: dict[type[PoolEvent], tuple[Handler[Any], ...]] = {}
        # How long an acquire takes at least, in seconds, that somebody wants to be told of in an event; from when on a
        # shorter one is told, as a sample; and whether anybody wants to know whom it waited for.
        self.acquired_from: float = math.inf
        self.sample_at: float = math.inf
        self.wants_holders: bool = False
        # Whether nothing more will be told: the pool no longer exists.
        self.ended: bool = False
        self.acquired_at_once: int = 0
        self._pool = pool
        self._clock = clock
        # What `TimesNoted` will tell, if somebody wants it. Appended to by the pool, emptied by whoever tells.
        self.wants_times: bool = False
        self.waits: dict[AcquirePath, deque[float]] = {path: deque() for path in get_args(AcquirePath)}
        self.uses: deque[float] = deque()
        self._told_at_once = 0
        # One at a time tells times, so that whoever is told needs no lock. Reentrant, for a handler may use the pool.
        self._telling = threading.RLock()
        self._failures = FailureLog(clock)

    @property
    def errors(self) -> int:
        """How often a handler raised."""
        return self._failures.count

    def forked(self) -> None:
        """Forget the times that the parent process will tell, and the lock, which nobody here releases."""
        self._telling = threading.RLock()
        for noted in (self.uses, *self.waits.values()):
            noted.clear()
        self._told_at_once = self.acquired_at_once

    def subscribe(
        self,
        event_type: type[E],
        handler: Handler[E],
        *,
        exact: bool = False,
        at_least: float = 0.0,
        samples: bool = False,
    ) -> Detach:
        """Call `handler(event)` for every later event of this type, and of its subclasses unless `exact`.

        `PoolEvent` is the parent of all. Returns a function that ends it, safe to call twice. The handler must be
        synchronous; what it raises is logged and counted, never seen by the pool. With `at_least`, in seconds, a
        handler of `ConnectionAcquired` is told exactly of those that took as long, or for which a connection was
        opened; if nobody wants the rest, their events are never made. With `samples` it is told of a few of the rest, a
        hundred a second at most, and need not be told whom they waited for, which costs most to know. Raises
        `TypeError` for anything but an event type and a callable, `ValueError` for `at_least` with another type.
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
            told, exact = _OfSlow(handler, at_least, samples), True
        wanted = _types_of(event_type, exact)
        if TimesNoted in wanted:
            self.tell_times()  # those of before, to those who came before
        for kind in wanted:
            self.handlers[kind] = (*self.handlers.get(kind, ()), told)
        self._note_wants()
        return _once(lambda: self._remove(wanted, told))

    def _remove(self, wanted: tuple[type[PoolEvent], ...], handler: Handler[Any]) -> None:
        if TimesNoted in wanted:
            self.tell_times()
        for kind in wanted:
            if rest := _without(handler, self.handlers[kind]):
                self.handlers[kind] = rest
            else:
                del self.handlers[kind]
        self._note_wants()
        self._failures.forget(handler)

    def _note_wants(self) -> None:
        told = self.handlers.get(ConnectionAcquired, ())
        thresholds = (each.at_least if isinstance(each, _OfSlow) else 0.0 for each in told)
        self.acquired_from = min(thresholds, default=math.inf)
        samples = [isinstance(each, _OfSlow) and each.samples for each in told]
        self.sample_at = min(self.sample_at, self._clock()) if any(samples) else math.inf
        self.wants_holders = not all(samples)
        self.wants_times = TimesNoted in self.handlers

    def emit(self, event: PoolEvent) -> None:
        """Hand the event to everyone who wants its type. Never raises."""
        failures: tuple[Failure, ...] = ()
        for handler in self.handlers.get(type(event), ()):
            try:
                handler(event)
            except BaseException as error:
                self._failed(handler, event, error)
                failures = (*failures, (handler, error))
        if type(event) is ConnectionAcquired:
            if self.wants_times:
                self.waits[event.path].append(event.wait_time)
            if self.sample_at < math.inf:
                self.sample_at = self._clock() + SAMPLE_INTERVAL
        elif self.wants_times and isinstance(event, ConnectionReleased):
            self.uses.append(event.use_time)
            if len(self.uses) >= PLENTY:
                self.tell_times(wait=False)
        if failures:
            self._tell_failures(failures, event)

    # -- times

    def tell_times(self, *, wait: bool = True) -> None:
        """Emit, now and in this thread, what was noted since the last `TimesNoted`, if anything was. Never raises.

        For whoever is about to show what it was told of times. Safe in any thread: if another one tells just now, this
        waits until everybody was told, or does nothing if `wait` is false.
        """
        if not self._telling.acquire(blocking=wait):
            return
        try:
            at_once = self.acquired_at_once - self._told_at_once
            self._told_at_once += at_once
            waits: dict[AcquirePath, tuple[float, ...]]
            waits = {path: _emptied(noted) for path, noted in self.waits.items() if noted}
            uses = _emptied(self.uses)
            if at_once or waits or uses:
                self.emit(TimesNoted(self._pool, at_once, waits, uses))
        finally:
            self._telling.release()

    # -- failures

    def _tell_failures(self, failures: tuple[Failure, ...], event: PoolEvent) -> None:
        # A failure to hear of a failure is counted and logged, and told to nobody: that could go on for ever.
        if not isinstance(event, SubscriberFailed):
            for failed, why in failures:
                told = SubscriberFailed(event.pool, event.name, repr(failed), ErrorInfo.of(why))
                failures = (*failures, *self._tell_the_others(failed, told))
        for _, error in failures:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise_in_loop(error)

    def _tell_the_others(self, failed: Handler[Any], failure: SubscriberFailed) -> tuple[Failure, ...]:
        # Not the one that failed: whoever raises at everything would be counted twice for each.
        failures: tuple[Failure, ...] = ()
        for handler in self.handlers.get(SubscriberFailed, ()):
            if handler is not failed:
                try:
                    handler(failure)
                except BaseException as error:
                    self._failed(handler, failure, error)
                    failures = (*failures, (handler, error))
        return failures

    def _failed(self, handler: Handler[Any], event: PoolEvent, error: BaseException) -> None:
        # It may have unsubscribed itself before it raised.
        stays = any(each is handler for each in self.handlers.get(type(event), ()))
        self._failures.add(handler, event.name, error, stays=stays)


class _OfSlow:
    """A handler of `ConnectionAcquired` that is not told of those that took less time and opened no connection.

    Unless it wants samples: then it is told of whatever is told at all.
    """

    __slots__ = ("_handler", "at_least", "samples")

    def __init__(self, handler: Handler[Any], at_least: float, samples: bool) -> None:
        self._handler = handler
        self.at_least = at_least
        self.samples = samples

    def __call__(self, event: Any) -> None:
        if self.samples or event.wait_time >= self.at_least or event.create_time:
            self._handler(event)

    def __repr__(self) -> str:
        return repr(self._handler)


def _emptied(noted: deque[float]) -> tuple[float, ...]:
    found: list[float] = []
    # Fewer than there were, if a signal or the garbage collector interrupts this and tells the rest.
    with contextlib.suppress(IndexError):
        for _ in range(len(noted)):  # and no more: the pool's thread may append meanwhile
            found.append(noted.popleft())
    return tuple(found)


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
