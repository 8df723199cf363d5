"""The pool's hold on a connection: a plain one for any driver, a watchful one for aiosqlite.

If the installed aiosqlite does not look as expected, its connections get the plain one too.
"""

import aiosqlite

from .aiosqlite_link import AiosqliteLink
from .aiosqlite_worker import (
    INTERRUPT_PATIENCE,
    KNOWS_AIOSQLITE,
    OverriddenLink,
    is_adopted,
    is_overridden,
    prepare_to_await,
    running_threads,
    see_off,
    stop,
)
from .calls import call, call_anyway, call_to_the_end, ended
from .cursors import KNOWS_SQLITE3
from .plain import PlainLink
from .protocol import Connection, Link

__all__ = [
    "INTERRUPT_PATIENCE",
    "KNOWS_AIOSQLITE",
    "AiosqliteLink",
    "Connection",
    "Link",
    "PlainLink",
    "call",
    "call_anyway",
    "call_to_the_end",
    "ended",
    "is_adopted",
    "link_to",
    "prepare_to_await",
    "running_threads",
    "see_off",
    "stop",
]


def link_to(raw: Connection) -> Link:
    """The best link there is for this connection."""
    if KNOWS_AIOSQLITE and KNOWS_SQLITE3 and isinstance(raw, aiosqlite.Connection):
        return OverriddenLink(raw) if is_overridden(raw) else AiosqliteLink(raw)
    return PlainLink(raw)
