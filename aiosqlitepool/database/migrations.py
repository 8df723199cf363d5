"""Bring a file to the newest version: each step in a transaction of its own, counted by `PRAGMA user_version`."""

from __future__ import annotations

import collections
import logging
import os
import re
import sqlite3
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import aiosqlite

from ..driver import call_to_the_end
from ..errors import PoolUsageError
from ..sql import GAP
from .arguments import bound
from .guard import control_word
from .pragmas import row_of
from .transaction import Transaction
from .writer import Writer

__all__ = ["Step", "checked_steps", "migrate"]

log: Final = logging.getLogger("aiosqlitepool")

Step = str | os.PathLike[str] | list[str] | tuple[str, ...] | Callable[[sqlite3.Connection], object]

_NOTHING: Final = re.compile(GAP, re.DOTALL)
# Not "PRAGMA foreign_keys": SQLite ignores it inside a transaction, and foreign keys are off already.
_REFUSED: Final = frozenset({"BEGIN", "COMMIT", "END", "ROLLBACK", "VACUUM"})


def checked_steps(steps: Iterable[Step]) -> Sequence[Step]:
    """Return the steps as a list. Raises `TypeError` or `ValueError` that names the first invalid one."""
    if isinstance(steps, str | bytes | os.PathLike) or not isinstance(steps, Iterable):
        raise TypeError(f"steps must be a list of steps, not {steps!r} ({type(steps).__name__})")
    checked = list(steps)
    for index, step in enumerate(checked):
        is_list = isinstance(step, list | tuple) and all(isinstance(each, str) for each in step)
        if not (is_list or isinstance(step, str | os.PathLike) or callable(step)):
            raise TypeError(
                f"steps[{index}] must be a str of SQL, a path, a list of str or a function of a sqlite3.Connection, "
                f"not {step!r} ({type(step).__name__})"
            )
        if isinstance(step, str) and step.endswith(".sql"):
            raise ValueError(f"steps[{index}] is {step!r}, and a str is SQL: pass the path of a file as pathlib.Path")
    return checked


async def migrate(writer: Writer, name: str, steps: Sequence[Step], label: str, timeout: float | None) -> int:
    """Apply the steps that the file does not have yet, as `SQLiteDatabase.migrate()` describes. Return their number."""
    migration, applied = _Migration(name, steps), 0
    async with writer.exclusive(label, timeout) as connection:
        prepare = partial(call_to_the_end, connection, migration.prepare)
        try:
            with writer.transaction(label, timeout) as transaction:
                version = await transaction.start(prepare)
            while version < len(steps):
                started_at = time.monotonic()
                with writer.transaction(label, timeout) as transaction:
                    version, was_applied = await _apply_next(migration, connection, transaction)
                if was_applied:
                    applied += 1
                    took = time.monotonic() - started_at
                    log.info("database %r: version %d of %d, after %.3f s", name, version, len(steps), took)
        finally:
            if migration.pending:  # foreign keys are off, and the steps may have set more
                writer.pool.expire_connections()
    return applied


async def _apply_next(
    migration: _Migration, connection: aiosqlite.Connection, transaction: Transaction
) -> tuple[int, bool]:
    run = partial(transaction.run, fn=migration.apply_next)
    return await transaction.start(lambda: call_to_the_end(connection, run))


class _Migration:
    """The steps of one call. All methods run in the worker thread."""

    def __init__(self, name: str, steps: Sequence[Step]) -> None:
        self._name = name
        self._steps = steps
        self._checks_foreign_keys = False
        # By the version of the file before the step.
        self.pending: dict[int, Callable[[sqlite3.Connection], object]] = {}

    def _version(self, native: sqlite3.Connection) -> int:
        version: int = row_of(native, "PRAGMA user_version")[0]
        if not 0 <= version <= len(self._steps):
            raise PoolUsageError(
                f"database {self._name!r} has version {version} (PRAGMA user_version), and only {len(self._steps)} "
                "steps were given: a newer program, or another one, has migrated it. Nothing was changed"
            )
        return version

    def prepare(self, native: sqlite3.Connection) -> int:
        """Compile the steps still to be applied, and switch foreign keys off. Return the version of the file."""
        version = self._version(native)
        for index, step in enumerate(self._steps[version:], version):
            function = step if callable(step) else partial(_execute_all, statements=list(self._statements(index, step)))
            self.pending[index] = bound(partial(_without_cursor, function), ())
        if self.pending:
            self._checks_foreign_keys = bool(row_of(native, "PRAGMA foreign_keys")[0])
            native.execute("PRAGMA foreign_keys = OFF").close()
        return version

    def _statements(self, index: int, step: str | os.PathLike[str] | list[str] | tuple[str, ...]) -> Iterator[str]:
        script = Path(step).read_text("utf-8-sig") if isinstance(step, os.PathLike) else step
        for part in [script] if isinstance(script, str) else script:
            for statement in _split(part):
                if (word := control_word(statement)) in _REFUSED:
                    raise PoolUsageError(
                        f"migration step {index + 1} of {len(self._steps)} contains {word}: each step is one "
                        "transaction, which migrate() begins and ends. Nothing was changed. Remove the statement; "
                        "VACUUM runs in db.maintenance()"
                    )
                yield statement

    def apply_next(self, native: sqlite3.Connection) -> tuple[int, bool]:
        """Apply one step inside a transaction. Return the new version, and whether this call has applied a step."""
        version, total = self._version(native), len(self._steps)
        if version == total:  # another process was faster
            return version, False
        # Without it, a function could execute COMMIT, and half of its step would be stored.
        native.set_authorizer(lambda action, *_: sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION else 0)
        try:
            self.pending[version](native)
            if self._checks_foreign_keys:
                _check_foreign_keys(native)
        except Exception as error:
            error.add_note(f"migration step {version + 1} of {total} failed: {self._name!r} stays at version {version}")
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_AUTH:
                error.add_note("a step is one transaction, which migrate() begins and ends")
            raise
        finally:
            native.set_authorizer(None)
        if native.in_transaction:  # else SQLite rolled the step back, and the commit is going to raise
            native.execute(f"PRAGMA user_version = {version + 1}").close()
        return version + 1, True


def _without_cursor(step: Callable[[sqlite3.Connection], object], native: sqlite3.Connection) -> object:
    result = step(native)
    return None if isinstance(result, sqlite3.Cursor) else result


def _execute_all(native: sqlite3.Connection, statements: Sequence[str]) -> None:
    for number, statement in enumerate(statements, 1):
        try:
            collections.deque(native.execute(statement), maxlen=0)
        except Exception as error:
            shown = textwrap.shorten(statement, 100, placeholder=" ...")
            error.add_note(f"statement {number} of {len(statements)}: {shown}")
            raise


def _split(script: str) -> Iterator[str]:
    """Yield the statements of a script, without empty ones."""
    statement = ""
    for part in [*re.split("(?<=;)", script), None]:
        if part is None or sqlite3.complete_statement(statement):
            if not _NOTHING.fullmatch(statement):
                yield statement.strip()
            statement = ""
        statement += part or ""


def _check_foreign_keys(native: sqlite3.Connection) -> None:
    if violation := row_of(native, "PRAGMA foreign_key_check"):
        table, rowid, parent, _ = violation
        raise sqlite3.IntegrityError(
            f"FOREIGN KEY constraint failed: row {rowid} of table {table!r} refers to a row of {parent!r} that does "
            "not exist. PRAGMA foreign_key_check lists all such rows"
        )
