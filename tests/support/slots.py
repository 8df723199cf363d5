"""The invariants of `Slots`, true whenever no method of it is running."""

from __future__ import annotations

from typing import Any

from aiosqlitepool.pool.slots import Slots

__all__ = ["check_slots"]


def check_slots(slots: Slots[Any], preparing: int = 0) -> None:
    """Assert that no slot is lost or doubled, and that no request waits beside a free one.

    Except while so many connections are being prepared for those that wait.
    """
    idle, vacant = set(slots._idle), set(slots._vacant)
    assert len(idle) == len(slots._idle), "a slot is idle twice"
    assert len(vacant) == len(slots._vacant), "a slot is vacant twice"
    assert not idle & vacant, "a slot is idle and vacant"
    assert idle | vacant <= set(slots.all), "a slot of another pool"
    assert all(slot.connection is not None for slot in idle), "an idle slot without a connection"
    assert all(slot.connection is None for slot in vacant), "a vacant slot with a connection"
    assert not any(slot.sharing.requests for slot in idle | vacant), "a slot that nobody has taken is shared"
    waiting = sum(not request.answer.done() for request in slots._queue)
    assert slots._takable is slots._idle or (slots.is_held and not slots._takable), "held slots can be taken"
    assert not idle | vacant or waiting <= preparing or slots.is_held, "a request waits although a slot is free"
