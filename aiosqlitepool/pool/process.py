"""Every pool of the process, for a subscriber that wants them all: those that are alive and those to come."""

from __future__ import annotations

import inspect
import weakref
from typing import Any, Protocol

from ..bus import Detach

__all__ = ["check_subscriber", "register", "subscribe_all"]


class Pool(Protocol):
    """What the registry needs of a pool."""

    def subscribe(self, subscriber: Any, /) -> Detach:
        """Attach a subscriber; returns what detaches it."""
        ...


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


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_subscriptions: list[_Subscription] = []


def register(pool: Pool) -> None:
    """A pool was made: whoever wants all of them gets this one too."""
    _pools.add(pool)
    for subscription in tuple(_subscriptions):
        subscription.attach(pool)


def check_subscriber(subscriber: object) -> None:
    """Raise `TypeError`, naming it, if that is no subscriber."""
    attach = getattr(subscriber, "attach", None)
    if not callable(attach):
        raise TypeError(f"subscriber must have an attach(pool) method; {subscriber!r} has none")
    if isinstance(subscriber, type) and inspect.isfunction(attach):
        raise TypeError(f"subscriber must be an object: {subscriber.__name__}(...), not the class {subscriber!r}")


def subscribe_all(subscriber: Any) -> Detach:
    """Attach a subscriber to every pool that is alive and to every pool made later; returns what detaches it from all.

    Raises `TypeError` if it has no `attach(pool)` method, or is a class where an object of it was meant, and whatever
    `attach` raises; then it is attached to none.
    """
    check_subscriber(subscriber)
    subscription = _Subscription(subscriber)
    _subscriptions.append(subscription)
    try:
        for pool in tuple(_pools):
            subscription.attach(pool)
    except BaseException:  # nobody could detach it, and every later pool would be refused with it
        subscription.detach()
        raise
    return subscription.detach
