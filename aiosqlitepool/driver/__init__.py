"""Connections and their worker threads: an adapter for aiosqlite, and a generic one for any other driver.

If the installed aiosqlite does not have the internals that its adapter uses, its connections get the generic one too.
"""

from collections.abc import Sequence
from functools import partial

import aiosqlite

from .aiosqlite_adapter import AiosqliteAdapter
from .cursors import RUN_SQL
from .executor import read_inline
from .generic_adapter import GenericAdapter
from .handle import Handle, guarded, handle_class
from .inline import InlineReads, Unfinished
from .internals import KNOWS_AIOSQLITE, warn_of_generic_adapter
from .jobs import Job, begin_at_once, call, call_anyway, call_last, call_to_the_end, ended
from .loop_work import Kind, LoopWork
from .opening import abandon, attached, connect, discard, is_overridden, opened
from .protocol import Adapter, Connection, Lessee
from .shield import shielded
from .single import (
    Change,
    Executed,
    Fetch,
    Parameters,
    RowFactory,
    Statement,
    call_as_statement,
    check_parameters,
    check_sql,
    raw_row,
    run_alone,
)
from .sqlite import KNOWS_SQLITE3, half_read, is_busy
from .statement_log import Figures, StatementLog
from .worker import INTERRUPT_PATIENCE

__all__ = [
    "Adapter",
    "AiosqliteAdapter",
    "Change",
    "Connection",
    "Executed",
    "Fetch",
    "GenericAdapter",
    "Handle",
    "INTERRUPT_PATIENCE",
    "InlineReads",
    "Job",
    "KNOWS_AIOSQLITE",
    "Kind",
    "Lessee",
    "LoopWork",
    "Parameters",
    "RUN_SQL",
    "RowFactory",
    "Statement",
    "Figures",
    "StatementLog",
    "Unfinished",
    "adapter_for",
    "begin_at_once",
    "call",
    "call_anyway",
    "call_as_statement",
    "call_last",
    "call_to_the_end",
    "check_parameters",
    "check_sql",
    "connect",
    "discard",
    "ended",
    "factory_object",
    "guarded",
    "half_read",
    "is_busy",
    "is_stale",
    "opened",
    "raw_row",
    "read_inline",
    "run_alone",
    "shielded",
    "was_attached",
]


def adapter_for(
    raw: Connection,
    session_sql: Sequence[str] = (),
    read_ahead: int = 0,
    log: StatementLog | None = None,
    inline: InlineReads | None = None,
) -> Adapter:
    """Return the best adapter for this connection.

    `session_sql` restores the pragmas of an aiosqlite connection after a lease that used one. `read_ahead` is the
    number of rows that its statements read ahead, `log` where they are recorded, and `inline` what runs short reads in
    the loop's own thread.
    """
    if not isinstance(raw, aiosqlite.Connection):
        return GenericAdapter(raw)
    if not (KNOWS_AIOSQLITE and KNOWS_SQLITE3):
        warn_of_generic_adapter()
        return GenericAdapter(raw)
    attached[id(raw)] = raw
    if is_overridden(raw):
        return GenericAdapter(raw, partial(abandon, raw))
    return AiosqliteAdapter(raw, handle_class(raw), session_sql, read_ahead, log, inline)


def was_attached(raw: object) -> bool:
    """Whether this connection is, or was, in a pool."""
    return isinstance(raw, Handle) or attached.get(id(raw)) is raw


def factory_object(connection: object) -> object:
    """Return what the factory made: for a handle the object behind it, else the connection itself."""
    return connection._pool_adapter.raw if isinstance(connection, Handle) else connection


def is_stale(connection: object) -> bool:
    """Whether this is a handle whose lease has ended. Never true of a driver that the pool does not know."""
    return isinstance(connection, Handle) and connection._pool_adapter.lease is not connection._pool_lease
