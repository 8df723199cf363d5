"""The pool's hold on a connection: a plain one for any driver, a watchful one for aiosqlite.

If the installed aiosqlite does not look as expected, its connections get the plain one too.
"""

import aiosqlite

from .aiosqlite_adapter import AiosqliteAdapter
from .cursors import KNOWS_SQLITE3
from .generic_adapter import GenericAdapter
from .jobs import call, call_anyway, call_to_the_end, ended
from .protocol import Adapter, Connection
from .worker import (
    INTERRUPT_PATIENCE,
    KNOWS_AIOSQLITE,
    OverriddenAdapter,
    is_adopted,
    is_overridden,
    prepare_to_await,
    running_threads,
    see_off,
    stop,
)

__all__ = [
    "INTERRUPT_PATIENCE",
    "KNOWS_AIOSQLITE",
    "AiosqliteAdapter",
    "Connection",
    "Adapter",
    "GenericAdapter",
    "call",
    "call_anyway",
    "call_to_the_end",
    "ended",
    "is_adopted",
    "adapter_for",
    "prepare_to_await",
    "running_threads",
    "see_off",
    "stop",
]


def adapter_for(raw: Connection) -> Adapter:
    """The best link there is for this connection."""
    if KNOWS_AIOSQLITE and KNOWS_SQLITE3 and isinstance(raw, aiosqlite.Connection):
        return OverriddenAdapter(raw) if is_overridden(raw) else AiosqliteAdapter(raw)
    return GenericAdapter(raw)
