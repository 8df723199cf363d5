"""Every pool of this process: for subscribers that want them all, for the end of the program, and for a fork.

Worker threads that are not stopped would keep the interpreter alive; SQLite connections must not cross a fork.
"""

from __future__ import annotations

import atexit
import inspect
import itertools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from .pool import SQLiteConnectionPool

__all__ = [
    "Subscriber",
    "check_subscriber",
    "checked_subscribers",
    "claim_name",
    "free_name",
    "register",
    "release_name",
    "subscribe_all",
]

log: Final = logging.getLogger("aiosqlitepool")

Detach = Callable[[], None]


# Those whose construction is complete.
_pools: weakref.WeakSet[SQLiteConnectionPool[Any]] = weakref.WeakSet()
_subscriptions: list[_Subscription] = []
# By name, the pool that has it, until that pool is closed or collected.
_named: weakref.WeakValueDictionary[str, object] = weakref.WeakValueDictionary()


def register(pool: SQLiteConnectionPool[Any], subscribers: Iterable[Subscriber]) -> None:
    """Attach these subscribers, and those of all pools, to a new pool. One that fails is logged and left out."""
    for subscriber in subscribers:
        _attach_or_log(subscriber, pool, pool.subscribe, subscriber)
    _pools.add(pool)
    for subscription in tuple(_subscriptions):
        _attach_or_log(subscription.subscriber, pool, subscription.attach, pool)


def _attach_or_log(
    subscriber: object, pool: SQLiteConnectionPool[Any], attach: Callable[[Any], object], argument: object
) -> None:
    # A pool serves its callers also without telemetry.
    try:
        attach(argument)
    except Exception:
        log.exception("pool %r: subscriber %r could not be attached and is left out", pool.name, subscriber)


# -- names


def free_name(name: str, *suffixes: str) -> str:
    """Return `name`, or `name#2` and so on while another pool has that name with one of the suffixes.

    Metrics, spans and logs tell pools apart by their names alone.
    """
    candidates = itertools.chain((name,), (f"{name}#{number}" for number in itertools.count(2)))
    free = next(each for each in candidates if not any(each + suffix in _named for suffix in suffixes or ("",)))
    if free != name:
        log.warning("the name %r is in use by another pool of this process: this one is named %r", name, free)
    return free


def claim_name(pool: object, name: str) -> str:
    """Give a free name to this pool, until it is closed or collected; return the name."""
    while _named.setdefault(claimed := free_name(name), pool) is not pool:  # another thread was faster
        pass
    return claimed


def release_name(pool: object, name: str) -> None:
    """Let another pool have the name of this one."""
    if _named.get(name) is pool:
        del _named[name]


# -- subscribers


class Subscriber(Protocol):
    """Receives the events of pools."""

    def attach(self, pool: Any, /) -> Detach:
        """Subscribe to `pool.events`; return what ends that. `pool` is a `SQLiteConnectionPool`."""
        ...


def checked_subscribers(subscribers: Iterable[Subscriber]) -> tuple[Subscriber, ...]:
    """Return them all; raise `TypeError` naming the value if it is no iterable, or is or has what is no subscriber."""
    # A recorder is a subscriber, and iterable.
    if not isinstance(subscribers, Iterable) or hasattr(subscribers, "attach"):
        kind = type(subscribers).__name__  # a recorder without events looks like an empty list
        raise TypeError(f"subscribers must be an iterable of subscribers, such as a list, not {subscribers!r} ({kind})")
    every = tuple(subscribers)
    for subscriber in every:
        check_subscriber(subscriber)
    return every


class _Subscription:
    """One subscriber, and how to detach it from each pool that it was attached to."""

    def __init__(self, subscriber: Subscriber) -> None:
        self.subscriber = subscriber
        self.detachers: weakref.WeakKeyDictionary[SQLiteConnectionPool[Any], Detach] = weakref.WeakKeyDictionary()

    def attach(self, pool: SQLiteConnectionPool[Any]) -> None:
        self.detachers[pool] = pool.subscribe(self.subscriber)

    def detach(self) -> None:
        if self in _subscriptions:
            _subscriptions.remove(self)
        for detach in tuple(self.detachers.values()):
            detach()
        self.detachers.clear()


def check_subscriber(subscriber: object) -> None:
    """Raise `TypeError`, naming it, if that is no subscriber."""
    attach = getattr(subscriber, "attach", None)
    if not callable(attach):
        raise TypeError(f"subscriber must have an attach(pool) method; {subscriber!r} has none")
    if isinstance(subscriber, type) and inspect.isfunction(attach):
        raise TypeError(f"subscriber must be an object: {subscriber.__name__}(...), not the class {subscriber!r}")


def subscribe_all(subscriber: Any) -> Detach:
    """Attach a subscriber to every pool that exists and to every pool made later.

    Returns what detaches it from all of them. Raises `TypeError` if it has no `attach(pool)` method, or is a class
    instead of an object, and whatever `attach` raises; then it is attached to none. If `attach` raises for a pool that
    is made later, the error is logged, and the pool works without this subscriber.
    """
    check_subscriber(subscriber)
    subscription = _Subscription(subscriber)
    _subscriptions.append(subscription)
    try:
        for pool in tuple(_pools):
            subscription.attach(pool)
    except BaseException:  # the caller could not detach it, and it would be attached to every later pool
        subscription.detach()
        raise
    return subscription.detach


# -- the end of the program, and forks


def abandon_all() -> None:
    """Abandon every pool that is open."""
    for pool in tuple(_pools):
        pool.abandon_at_exit()


def fork_all() -> None:
    """Disable every open pool in a forked child."""
    for pool in tuple(_pools):
        pool.forked()


# atexit runs only after every non-daemon thread has ended, which the threads of forgotten connections never do.
# concurrent.futures uses the same hook for the same reason.
getattr(threading, "_register_atexit", atexit.register)(abandon_all)
if hasattr(os, "register_at_fork"):  # a system without it cannot fork
    os.register_at_fork(after_in_child=fork_all)
