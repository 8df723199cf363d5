"""Which name a pool has in metrics, so that a program that makes pools without end has a bounded number of series."""

from __future__ import annotations

import weakref

from ._levels import AnyPool

__all__ = ["MOST_PAST", "OTHER_POOLS", "UNNAMED", "PoolNames"]

# All pools without a name of their own have the series of this name.
UNNAMED = "unnamed"
# Beyond this many names of closed pools, the series of all others have one name.
MOST_PAST = 100
OTHER_POOLS = "_OTHER"


class PoolNames:
    """Names in metrics whose series last as long as the process: each name that had one keeps it.

    Open pools have series of their own, and so do 100 closed ones; a later one is `OTHER_POOLS`.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._pools: weakref.WeakValueDictionary[str, AnyPool] = weakref.WeakValueDictionary()

    def shown(self, pool: AnyPool) -> str:
        """Return the name of the pool in metrics."""
        if not pool.is_named:
            return UNNAMED
        if pool.name not in self._seen:
            is_open = [each for each in self._pools.values() if each.stats().state != "closed"]
            if len(self._seen) - len(is_open) >= MOST_PAST:
                return OTHER_POOLS
            self._seen.add(pool.name)
        self._pools[pool.name] = pool
        return pool.name
