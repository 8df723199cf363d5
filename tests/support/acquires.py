"""Acquires and releases as a pool reports them on its bus, without a pool that does them."""

from __future__ import annotations

from aiosqlitepool.bus import EventBus
from aiosqlitepool.events import AcquirePath, AcquireSlow, ConnectionAcquired, ConnectionReleased, PoolTimings

__all__ = ["acquired", "released"]

SLOW_ACQUIRE = 0.05


def acquired(bus: EventBus, wait_time: float, path: AcquirePath = "queued", pool: str = "app.db") -> None:
    """One acquire; immediate if an idle connection took no time."""
    if path == "idle" and not wait_time:
        bus.immediate += 1
        bus.emit(ConnectionAcquired(pool, 1, path, wait_time))
        return
    slow = wait_time >= SLOW_ACQUIRE
    if slow:
        bus.emit(AcquireSlow(pool, 1, path, wait_time))
    bus.emit(ConnectionAcquired(pool, 1, path, wait_time))
    if PoolTimings in bus.handlers:
        (bus.record_slow_wait if slow else bus.record_wait)(path, wait_time)


def released(bus: EventBus, use_time: float, pool: str = "app.db", label: str | None = None) -> None:
    """One release."""
    bus.emit(ConnectionReleased(pool, 1, use_time, label))
    if PoolTimings in bus.handlers:
        bus.record_use(use_time)
