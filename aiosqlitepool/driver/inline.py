"""Runs short reads in the event loop's own thread: to wake a worker thread costs more than they do.

What is short is decided by counting the steps of SQLite's virtual machine, which a busy machine does not change. A read
beyond its budget is interrupted, which loses nothing, and runs again in its worker thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
import weakref
from collections.abc import Callable
from time import perf_counter
from typing import Any, ClassVar, Final, TypeVar

from ..sql import LONGEST_READ, READS, first_word, normalized
from .sqlite import is_busy

try:
    from resource import RUSAGE_SELF, RUSAGE_THREAD, getrusage
except ImportError:  # pragma: no cover - on macOS and Windows, which do not count by thread

    def _preemptions() -> int:
        return 0

    def _disk_reads() -> int:
        return 0
else:

    def _preemptions() -> int:
        """Return how often the system took the processor from this thread: a read is then slow through no fault."""
        return getrusage(RUSAGE_THREAD).ru_nivcsw

    def _disk_reads() -> int:
        """Return a number that grows when any thread reads from a disk what the system does not have in memory."""
        usage = getrusage(RUSAGE_SELF)
        return usage.ru_inblock + usage.ru_majflt


__all__ = ["InlineReads", "LoopTurn", "Reading", "Unfinished", "is_one_statement"]

R = TypeVar("R")

# What one read may cost: steps of the virtual machine, between two calls of the handler and in all, and seconds.
_STEPS: Final = 1_000
_MOST_CALLS: Final = 10
_LONGEST: Final = 0.001
# Seconds of such reads in one turn of the event loop.
_TURN: Final = 0.0002
# How often a read that was too long goes to the worker before it is tried again, at first and at most.
_FIRST_PAUSE: Final = 10
_LONGEST_PAUSE: Final = 10_000
# For how many reads after a slow one the system is asked whether it took the processor away, which takes 2 µs.
_WATCHED: Final = 100
_MOST_KINDS: Final = 500
# Seconds of one window in which the longest stall is looked for: usually the time between two scrapes.
STALL_WINDOW: Final = 15.0

_set_handler = sqlite3.Connection.set_progress_handler


class Unfinished(Exception):  # noqa: N818 - a signal
    """The read was too long: run it in the worker thread."""


class Reading:
    """What a read that needs no lease is recorded under: it has ended before anybody can see that it holds a slot."""

    __slots__ = ("activity", "connection", "label")

    def __init__(self, label: str | None, connection: int) -> None:
        self.label: str | None = label
        self.connection: int = connection
        self.activity: tuple[object, float, float | None]

    def forgotten(self) -> None:
        """Never called: there is no handle."""

    def refusal(self) -> None:
        """Never called: it is not refused."""


class LoopTurn:
    """How many seconds of its present turn an event loop has given to reads. One for each loop."""

    _all: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopTurn]] = weakref.WeakKeyDictionary()

    def __init__(self) -> None:
        self._spent = 0.0

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> LoopTurn:
        """Return the one instance of this loop."""
        turn = cls._all.get(loop)
        if turn is None:
            turn = cls._all[loop] = cls()
        return turn

    @property
    def is_over(self) -> bool:
        """Whether no time is left in this turn."""
        return self._spent >= _TURN

    async def next(self) -> None:
        """Wait for a turn of the loop that has time left."""
        while self._spent >= _TURN:  # noqa: ASYNC110 - it waits for a turn, and no event
            await asyncio.sleep(0)

    def spend(self, seconds: float) -> float:
        """Count what was spent, until the next turn; return how much that is in this one."""
        if not self._spent:
            asyncio.get_running_loop().call_soon(self._begin)
        self._spent += seconds
        return self._spent

    def _begin(self) -> None:
        self._spent = 0.0


class _Kind:
    """What is known of some reads: how often they go to the worker before one is tried inline again."""

    __slots__ = ("left", "pause", "short")

    def __init__(self, left: float) -> None:
        self.left = left
        self.pause = _FIRST_PAUSE
        # Those that were short, in a row.
        self.short = 0

    def send_away(self) -> None:
        """Send them to the worker for a while, each time for longer."""
        self.left, self.pause, self.short = self.pause, min(2 * self.pause, _LONGEST_PAUSE), 0

    def was_short(self) -> None:
        """Begin with short pauses again after as many short reads as the next pause has."""
        self.short += 1
        if self.short >= self.pause:
            self.pause = _FIRST_PAUSE


class InlineReads:
    """Which reads of one pool run inline, and what became of them. Used in the event loop only."""

    def __init__(
        self,
        clock: Callable[[], float] = perf_counter,
        preemptions: Callable[[], int] = _preemptions,
        disk_reads: Callable[[], int] = _disk_reads,
    ) -> None:
        self._clock = clock
        self._preemptions = preemptions
        self._disk_reads = disk_reads
        # All of them: where the system has to fetch the file from a slow disk, a read of any kind can be slow.
        self._all = _Kind(0)
        self._all.short = _WATCHED
        self._disk_read = 0
        # That of the loop in which it is used.
        self._turn: LoopTurn | None = None
        self._kinds: dict[str, _Kind] = {}
        # By normalized SQL, so that a statement with its values written out is no new kind each time.
        self._normalized: dict[str, _Kind] = {}
        self._calls = 0
        self._until = 0.0
        # The longest stalls of the loop, in seconds, of this window and of the one before it, and when this one began.
        self._longest = self._longest_before = 0.0
        self._window = clock()

    @property
    def turn(self) -> LoopTurn:
        """The turn of the loop: pools belong to one."""
        if self._turn is None:
            self._turn = LoopTurn.of(asyncio.get_running_loop())
        return self._turn

    def is_short(self, sql: str) -> bool:
        """Return whether this statement is to run inline now."""
        return self._all.left <= 0 and self._kind(sql).left <= 0

    def takes(self, sql: str) -> bool:
        """Do the same, and count the pauses down if it is not."""
        if self.is_short(sql):
            return True
        for each in (self._all, self._kind(sql)):
            each.left -= 1
        if self._all.left == 0 and (disk_reads := self._disk_reads()) != self._disk_read:  # to try would be too early
            self._all.left, self._disk_read = self._all.pause, disk_reads
        return False

    def stall(self) -> float:
        """Return the seconds of the longest stall of the loop in the last 15 to 30 seconds. Safe in any thread."""
        passed = (self._clock() - self._window) // STALL_WINDOW
        return 0.0 if passed > 1 else self._longest if passed else max(self._longest, self._longest_before)

    def _stalled(self, now: float, seconds: float) -> None:
        if (passed := (now - self._window) // STALL_WINDOW) > 0:
            self._longest_before = self._longest if passed == 1 else 0.0
            self._longest, self._window = 0.0, self._window + passed * STALL_WINDOW
        self._longest = max(self._longest, seconds)

    def _kind(self, sql: str) -> _Kind:
        return self._kinds.get(sql) or self._new(sql)

    def _new(self, sql: str) -> _Kind:
        for kinds in (self._kinds, self._normalized):
            if len(kinds) >= _MOST_KINDS:
                kinds.clear()
        is_read = first_word(sql) in READS and "pragma" not in sql.lower()
        kind = self._normalized.setdefault(normalized(sql), _Kind(0 if is_read else float("inf")))
        if len(sql) <= LONGEST_READ:
            self._kinds[sql] = kind
        return kind

    def run(self, sql: str, native: sqlite3.Connection, read: Callable[[], R]) -> R:
        """Return `read()`, which executes `sql` with `native`; raises `Unfinished` if that is too much for the loop."""
        kind, is_unfinished = self._kind(sql), False
        preemptions = self._preemptions() if self._all.short < _WATCHED else None
        began = self._clock()
        self._calls, self._until = 0, began + _LONGEST
        try:
            # Only for this read: it would also interrupt what is no read, such as a health check in the worker.
            _set_handler(native, self._is_too_long, _STEPS)
            return read()
        except sqlite3.Error as error:
            is_unfinished = self._calls > _MOST_CALLS or _must_wait(error)
            if is_unfinished:
                raise Unfinished from None
            raise
        finally:
            _set_handler(native, None, 0)
            ended = self._clock()
            self._stalled(ended, self.turn.spend(ended - began))
            if is_unfinished:
                kind.send_away()
            elif ended - began > _LONGEST:
                self._was_slow(kind, preemptions)
            else:
                kind.was_short()
                self._all.was_short()

    def _was_slow(self, kind: _Kind, preemptions: int | None) -> None:
        """Send this kind to the worker, and all for a while, if it was not the first, nor because the machine is busy.

        By the clock: the steps of the virtual machine do not count what waits for a disk.
        """
        self._all.short = kind.short = 0
        if preemptions is not None and self._preemptions() == preemptions:
            kind.send_away()
            self._all.send_away()
            self._disk_read = self._disk_reads()

    def _is_too_long(self) -> bool:
        self._calls += 1
        if self._clock() > self._until:
            self._calls = _MOST_CALLS + 1
        return self._calls > _MOST_CALLS


def _must_wait(error: sqlite3.Error) -> bool:
    return is_busy(error) or getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_LOCKED


def is_one_statement(fn: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Return whether an operation executes one statement, its first argument, once."""
    return getattr(fn, "__name__", None) in ("execute", "_execute_fetchall") and bool(args) and type(args[0]) is str
