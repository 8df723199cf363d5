"""Waits that must outlast a cancelled scope of anyio, which cancels its tasks again at each turn of the loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

__all__ = ["shielded"]

R = TypeVar("R")

# Imported by anyio itself at the first use in asyncio. Many programs import anyio and use no scope of it; to make the
# first one would import this module, which takes 20 ms.
_BACKEND: Final = "anyio._backends._asyncio"


async def shielded(wait: Awaitable[R]) -> R:
    """Await what ends by itself, out of sight of anyio's scopes. A cancellation by asyncio itself is still raised.

    A cancelled scope reschedules itself at each turn of the loop, and burns a core, until its tasks have ended or have
    entered a shielded scope. What a task awaits makes no difference.
    """
    anyio: Any = sys.modules.get("anyio") if _BACKEND in sys.modules else None
    task = asyncio.current_task()
    if anyio is None or task is None:
        return await wait
    scope = anyio.CancelScope(shield=True)
    scope.__enter__()
    try:
        return await wait
    finally:
        # Not in a coroutine that is thrown away after its loop was closed: no task runs it, and the scope would raise.
        if asyncio.current_task(task.get_loop()) is task:
            scope.__exit__(None, None, None)
