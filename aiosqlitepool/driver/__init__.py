"""The pool's hold on a connection: a plain one for any driver, a watchful one for aiosqlite.

If the installed aiosqlite does not look as expected, its connections get the plain one too.
"""

import aiosqlite

from .aiosqlite_link import INTERRUPT_PATIENCE, KNOWS_AIOSQLITE, AiosqliteLink, prepare_to_await, see_off
from .calls import call, call_anyway, call_to_the_end, ended
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
    "link_to",
    "prepare_to_await",
    "see_off",
]


def link_to(raw: Connection) -> Link:
    """The best link there is for this connection."""
    if KNOWS_AIOSQLITE and isinstance(raw, aiosqlite.Connection):
        return AiosqliteLink(raw)
    return PlainLink(raw)
