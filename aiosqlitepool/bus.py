"""The event bus: delivers events and batches of timings to subscribers. Knows events, not pools."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat, starmap
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, get_args

from .copying import CapturedContext
from .errors import ErrorInfo
from .events import PoolEvent, StatementExecuted, StatementKind, StatementTimings, SubscriberFailed, event_types
from .failures import FailureLog, raise_in_loop
from .timings import AcquirePath, PoolTimings, SlowWait

__all__ = ["BATCH_SIZE", "Detach", "EventBus", "Handler"]

# What handlers may receive. `PoolEvent` stands for its subclasses only.
Emitted = PoolEvent | PoolTimings | StatementTimings | StatementExecuted
E = TypeVar("E", bound=Emitted)
P = ParamSpec("P")
T = TypeVar("T")
Handler = Callable[[E], object]
Detach = Callable[[], None]

# Uses per batch. A smaller batch costs more per use; a larger one delays the event loop for longer at a time.
BATCH_SIZE: Final = 256
_BATCHES: Final = frozenset({PoolTimings, StatementTimings})


class EventBus:
    """Delivers each event synchronously to the handlers of its type, in the order in which they subscribed.

    `handlers` has an entry only for types with a subscriber; an event without one is never built. `immediate` counts
    the idle connections that were acquired without a wait, always. The pool calls the `record_*` methods only while
    `PoolTimings` has a subscriber.
    """

    __slots__ = (
        "_attached",
        "_failures",
        "_flushed_immediate",
        "_flushing",
        "_pool",
        "_slow",
        "_uses",
        "_waits",
        "flush_statements",
        "handlers",
        "immediate",
        "record_queued",
    )

    def __init__(self, clock: Callable[[], float] = time.monotonic, pool: str = "") -> None:
        # Tuples, replaced and never changed: a handler may subscribe or detach while events are delivered. The dict
        # itself is never replaced: others read it.
        self.handlers: dict[type, tuple[Handler[Any], ...]] = {}
        self.immediate: int = 0
        # Has the pending times of statements emitted.
        self.flush_statements: Callable[[], None] | None = None
        # By its id, each object that is attached once: for how many callers, what detaches it, and the object.
        self._attached: dict[int, list[Any]] = {}
        self._pool = pool
        self._flushed_immediate = 0
        self._waits: dict[AcquirePath, deque[float]] = {path: deque() for path in get_args(AcquirePath)}
        # As `record_wait("queued", seconds)`, without the price of a call.
        self.record_queued: Callable[[float], None] = self._waits["queued"].append
        self._slow: deque[SlowWait] = deque()
        self._uses: deque[float] = deque()
        # Batches are delivered one at a time, so their handlers need no lock. Reentrant: a handler may use the pool.
        self._flushing = threading.RLock()
        self._failures = FailureLog(clock)

    @property
    def errors(self) -> int:
        """How many exceptions handlers have raised."""
        return self._failures.count

    def forked(self) -> None:
        """Drop the pending timings, which the parent process delivers, and replace the lock, which it may hold."""
        self._flushing = threading.RLock()
        self.flush_statements = None
        self._uses.clear()
        self._slow.clear()
        for waits in self._waits.values():
            waits.clear()
        self._flushed_immediate = self.immediate

    # -- subscriptions

    def subscribe(self, event_type: type[E], handler: Handler[E]) -> Detach:
        """Call `handler(event)` for every later event of this type and of its subclasses.

        `PoolEvent` stands for all events, but not for `PoolTimings`, `StatementTimings` and `StatementExecuted`. The
        handler must be synchronous. An exception that it raises is logged and counted; the pool never sees it.

        Returns:
            A function that ends the subscription; calling it again does nothing.

        Raises:
            TypeError: `event_type` is not an event type, or `handler` is not a synchronous callable.
        """
        if not (isinstance(event_type, type) and issubclass(event_type, Emitted)):
            raise TypeError(
                "event_type must be PoolEvent, one of its subclasses, PoolTimings, StatementTimings or "
                f"StatementExecuted, not {event_type!r}"
            )
        _check_handler(handler)
        types = _types_of(event_type)
        if not types.isdisjoint(_BATCHES):
            self.flush_timings()  # A new subscriber does not receive what happened before.
        for each in types:
            self.handlers[each] = (*self.handlers.get(each, ()), handler)
        return _Once(self._remove, types, handler)

    def attach_once(self, owner: object, attach: Callable[[], Detach]) -> Detach:
        """Call `attach()`, unless it was called for this object already: a registry must not count an event twice.

        If `attach` raises, the handlers that it has subscribed are dropped.

        Returns:
            A function to call at the end. That of the last caller calls what `attach` returned.
        """
        key = id(owner)
        if key not in self._attached:
            before = self.handlers.copy()
            try:
                detach = attach()
            except BaseException:
                for each in set(self.handlers) - set(before):
                    del self.handlers[each]
                self.handlers.update(before)
                raise
            self._attached[key] = [0, detach, owner]
        entry = self._attached[key]
        entry[0] += 1

        def leave() -> None:
            entry[0] -= 1
            if not entry[0]:
                self._attached.pop(key, None)
                entry[1]()

        return _Once(leave)

    def end(self) -> None:
        """Keep nothing that detaches, once the pool has closed: it refers to this bus, and would keep it alive."""
        self._attached.clear()
        self.flush_statements = None

    def _remove(self, types: frozenset[type], handler: Handler[Any]) -> None:
        if not types.isdisjoint(_BATCHES):
            self.flush_timings()
        for each in types:
            if rest := _without(handler, self.handlers.get(each, ())):  # no handler: of an `attach` that raised
                self.handlers[each] = rest
            else:
                self.handlers.pop(each, None)
        self._failures.forget(handler)

    # -- events

    def emit_new(self, kind: Callable[Concatenate[str, P], PoolEvent], *args: P.args, **kwargs: P.kwargs) -> None:
        """Build an event of this type, for this pool, and emit it; neither if the type has no subscriber."""
        if kind in self.handlers:
            self.emit(kind(self._pool, *args, **kwargs))

    def emit(self, event: Emitted, *, skip: Handler[Any] | None = None) -> None:
        """Deliver the event to every handler of its type but `skip`. Never raises an exception of a handler."""
        failures: tuple[tuple[Handler[Any], BaseException], ...] = ()
        for handler in self.handlers.get(type(event), ()):
            if handler is skip:
                continue
            try:
                handler(event)
            except BaseException as error:
                self._failed(handler, event, error)
                failures = (*failures, (handler, error))
        for failed, why in failures:
            try:
                # A failure of a SubscriberFailed handler is counted and logged, not emitted: that could repeat forever.
                if not isinstance(event, SubscriberFailed):
                    # Not to the failed handler: one that raises on every event would be counted twice for each.
                    report = SubscriberFailed(event.pool, event.name, repr(failed), ErrorInfo.of(why))
                    self.emit(report, skip=failed)
            finally:
                if isinstance(why, KeyboardInterrupt | SystemExit):
                    raise_in_loop(why)

    def _failed(self, handler: Handler[Any], event: Emitted, error: BaseException) -> None:
        # The handler may have detached itself before it raised.
        stays = any(each is handler for each in self.handlers.get(type(event), ()))
        self._failures.add(handler, event.name, error, stays=stays)

    # -- timings

    def record_wait(self, path: AcquirePath, seconds: float) -> None:
        """Add the wait of an acquire that was neither immediate nor slow to the next batch."""
        self._waits[path].append(seconds)

    def record_slow_wait(self, path: AcquirePath, seconds: float) -> None:
        """Add the wait of a slow acquire, with a copy of the current context, to the next batch."""
        self._slow.append(SlowWait(path, seconds, CapturedContext(contextvars.copy_context())))

    def record_use(self, seconds: float) -> None:
        """Add the use time of a released connection to the next batch, and emit the batch if it is full."""
        self._uses.append(seconds)
        if len(self._uses) >= BATCH_SIZE:
            self._flush(wait=False)

    def flush_timings(self) -> None:
        """Emit the pending timings as one `PoolTimings`, in this thread. Call it before reading metrics.

        Safe in any thread. If another thread is delivering a batch, this waits until it has finished. Never raises an
        exception of a handler. The pending times of statements follow, as `StatementTimings`.
        """
        self._flush(wait=True)
        if self.flush_statements is not None:
            self.flush_statements()

    def emit_statements(self, runs: Mapping[StatementKind, Sequence[float]]) -> None:
        """Emit these times of statements, after the batch that another thread may be delivering. Safe in any thread."""
        with self._flushing:
            self.emit(StatementTimings(self._pool, runs))

    def _flush(self, *, wait: bool) -> None:
        if not self._flushing.acquire(blocking=wait):
            return
        try:
            immediate = self.immediate - self._flushed_immediate
            self._flushed_immediate += immediate
            waits: dict[AcquirePath, tuple[float, ...]]
            waits = {path: _drain(pending) for path, pending in self._waits.items() if pending}
            slow, uses = _drain(self._slow), _drain(self._uses)
            if immediate or waits or slow or uses:
                self.emit(PoolTimings(self._pool, immediate, waits, slow, uses))
        finally:
            self._flushing.release()


def _drain(pending: deque[T]) -> tuple[T, ...]:
    found: list[T] = []
    # IndexError: a signal handler or the garbage collector interrupted this and drained the rest.
    with contextlib.suppress(IndexError):  # Not until empty: the pool's thread may append meanwhile.
        found.extend(starmap(pending.popleft, repeat((), len(pending))))
    return tuple(found)


def _check_handler(handler: object) -> None:
    if not callable(handler):
        raise TypeError(f"handler must be callable, not {handler!r}")
    if inspect.iscoroutinefunction(handler):
        raise TypeError(f"handler must be a plain function, because a pool does not await it, not {handler!r}")


class _Once:
    """Calls a function at its own first call only. A pool has tens of them, so it is smaller than a closure."""

    __slots__ = ("_pending",)

    def __init__(self, function: Callable[P, None], *args: P.args, **_: P.kwargs) -> None:
        self._pending = [(function, args)]

    def __call__(self) -> None:
        if self._pending:
            function, args = self._pending.pop()
            function(*args)  # type: ignore[call-arg]


def _without(handler: object, handlers: tuple[Any, ...]) -> tuple[Any, ...]:
    # One occurrence only: a handler that subscribed twice and detached once stays subscribed.
    index = next((index for index, each in enumerate(handlers) if each is handler), len(handlers))
    return handlers[:index] + handlers[index + 1 :]


def _types_of(event_type: type) -> frozenset[type]:
    children = {each for each in event_types() if issubclass(each, event_type)}
    return frozenset(children if event_type is PoolEvent else {*children, event_type})
