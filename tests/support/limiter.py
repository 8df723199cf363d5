"""A limiter that limits, on however many cores the tests run."""

from __future__ import annotations

import asyncio

from aiosqlitepool.driver.completions import Completions
from aiosqlitepool.driver.limiter import Limiter

__all__ = ["limit_here"]


def limit_here() -> None:
    """Limit the statements of all connections that are opened in this loop from now on."""
    Completions.of(asyncio.get_running_loop()).limiter = Limiter(cores=2, has_gil=True)
