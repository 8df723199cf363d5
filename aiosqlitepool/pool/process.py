"""Every pool of this process: for subscribers that want them all, for the end of the program, and for a fork.

Worker threads that are not stopped would keep the interpreter alive; SQLite connections must not cross a fork.
"""

from __future__ import annotations

import atexit
import inspect
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Protocol

__all__ = ["Subscriber", "check_subscriber", "checked_subscribers", "closed", "opened", "register", "subscribe_all"]

Detach = Callable[[], None]


class Pool(Protocol):
    """What subscribers of all pools need of a pool."""

    def subscribe(self, subscriber: Any, /) -> Detach:
        """Attach a subscriber; return what detaches it."""
        ...


class OpenPool(Protocol):
    """What the process does with a pool that is open."""

    def abandon_at_exit(self) -> None:
        """Warn of what was left open, and let it close by itself."""
        ...

    def forked(self) -> None:
        """Become unusable: this is the child process."""
        ...


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_open: weakref.WeakSet[OpenPool] = weakref.WeakSet()
_subscriptions: list[_Subscription] = []


def register(pool: Pool) -> None:
    """Attach the subscribers of all pools to a new one."""
    _pools.add(pool)
    for subscription in tuple(_subscriptions):
        subscription.attach(pool)


def opened(pool: OpenPool) -> None:
    """Abandon this pool when the program ends, and disable it in a forked child."""
    _open.add(pool)


def closed(pool: OpenPool) -> None:
    """Forget a pool that was closed."""
    _open.discard(pool)


# -- subscribers


class Subscriber(Protocol):
    """Receives the events of pools."""

    def attach(self, pool: Any, /) -> Detach:
        """Subscribe to `pool.events`; return what ends that. `pool` is a `SQLiteConnectionPool`."""
        ...


def checked_subscribers(subscribers: Iterable[Subscriber]) -> tuple[Subscriber, ...]:
    """Return them all; raise `TypeError` naming the value if it is no iterable, or is itself a subscriber."""
    # A recorder is a subscriber, and iterable.
    if isinstance(subscribers, Iterable) and not hasattr(subscribers, "attach"):
        return tuple(subscribers)
    raise TypeError(f"subscribers must be an iterable of subscribers, such as a list, not {subscribers!r}")


class _Subscription:
    """One subscriber, and how to detach it from each pool that it was attached to."""

    def __init__(self, subscriber: object) -> None:
        self.subscriber = subscriber
        self.detachers: weakref.WeakKeyDictionary[Pool, Detach] = weakref.WeakKeyDictionary()

    def attach(self, pool: Pool) -> None:
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
    instead of an object, and whatever `attach` raises; then it is attached to none.
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
    for pool in tuple(_open):
        pool.abandon_at_exit()


def fork_all() -> None:
    """Disable every open pool in a forked child."""
    for pool in tuple(_open):
        pool.forked()


# atexit runs only after every non-daemon thread has ended, which the threads of forgotten connections never do.
# concurrent.futures uses the same hook for the same reason.
getattr(threading, "_register_atexit", atexit.register)(abandon_all)
if hasattr(os, "register_at_fork"):  # a system without it cannot fork
    os.register_at_fork(after_in_child=fork_all)
