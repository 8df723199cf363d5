"""Regimes: how many cores a measuring process may use. Whether event loop and worker threads share one decides a lot.

Threads inherit the cores of the thread that starts them, so a round pins its process before it opens anything.
"""

from __future__ import annotations

import os

__all__ = ["REGIMES", "pin", "why_unpinned"]

REGIMES = {"one core": 1, "two cores": 2}
"""The cores of each regime, by what it is called in tables and claims."""

_CAN_PIN = hasattr(os, "sched_setaffinity")
# Of this process when it began. A later look would see what an earlier round left.
_CORES = sorted(os.sched_getaffinity(0)) if _CAN_PIN else []


def pin(regime: str) -> None:
    """Run this thread, and those that it starts, on the cores of `regime`; on all if it is "", or cannot be pinned."""
    if _CAN_PIN:
        wanted = REGIMES.get(regime, 0)
        os.sched_setaffinity(0, _CORES[:wanted] if 0 < wanted <= len(_CORES) else _CORES)


def why_unpinned(regime: str) -> str | None:
    """Why processes of this machine cannot be pinned to the cores of `regime`; `None` if they can."""
    if not _CAN_PIN:
        return "this system cannot pin a process to cores"
    wanted = REGIMES[regime]
    return None if wanted <= len(_CORES) else f"{len(_CORES)} core is available, not {wanted}"
