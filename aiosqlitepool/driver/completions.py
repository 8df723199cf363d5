"""Return results from worker threads to their event loop, with one wake-up for all that are ready.

The other way, jobs are queued by `worker`.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

from .limiter import Limiter

__all__ = ["Completions", "Outcome"]

R = TypeVar("R")

_add_callback: Final[Any] = asyncio.Future.add_done_callback


class Outcome(asyncio.Future[R]):
    """The outcome of an operation in a worker thread. `settle` goes on with the task that awaits it, at once.

    A plain future has the loop do that in its next turn. A turn costs a sixth of a statement with its lease.
    """

    __slots__ = ("_waiter",)

    def add_done_callback(self, fn: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Do what a future does, for every other way to end; and remember how to go on with a task."""
        _add_callback(self, fn, context=context)
        if context is not None and not self._loop.get_debug():  # which names a task that keeps the loop for long
            self._waiter = fn, context

    def settle(self, result: Any, error: BaseException | None) -> None:
        """Set the outcome, and run the task until it awaits something else. To be called in no task."""
        if self.done():  # its caller was cancelled, or has been refused
            return
        waiter = getattr(self, "_waiter", None)
        if waiter is not None:
            self.remove_done_callback(waiter[0])
        if error is None:
            self.set_result(result)
        elif isinstance(error, StopIteration):  # which a future refuses
            self.set_exception(RuntimeError(f"the operation raised {error!r}"))
        else:
            self.set_exception(error)
        if waiter is not None:
            waiter[1].run(waiter[0], self)
        # From Python 3.12, the traceback of an error that the task has caught keeps this frame, as the `f_back` of its
        # own: a cycle would keep the task until it is collected. The same goes for that of `deliver`.
        self = error = waiter = None  # type: ignore[assignment]


def _tried(fn: Callable[[], object]) -> tuple[Any, BaseException | None]:
    try:
        return fn(), None
    except BaseException as error:
        return None, error


def _waits_for_descriptors(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop calls a reader again that Ctrl-C has kept from reading. A lost call would leave `_woken` set."""
    return isinstance(loop, asyncio.SelectorEventLoop) or type(loop).__module__ == "uvloop"


class Completions:
    """Carries outcomes from worker threads to their event loop, waking it once for all that are pending.

    A wake-up costs system calls on each side, more than all of the pool's own work. Where the system has eventfd, the
    loop waits for one: `call_soon_threadsafe` makes a handle, and asyncio reads its own socket twice and catches an
    exception, which is a twelfth of a statement with its lease.
    """

    __slots__ = ("__weakref__", "_loop", "_pending", "_wake_fd", "_woken", "_workers", "limiter")

    _all: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Completions]] = weakref.WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._pending: deque[tuple[Outcome[Any], Any, BaseException | None]] = deque()
        # Whether the loop was woken and has not yet begun to deliver.
        self._woken = False
        # How many threads serve connections: only these may write to the descriptor, which the last one closes.
        self._workers = 0
        self._wake_fd: int | None = None
        self.limiter: Limiter = Limiter()

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Completions:
        """Return the one instance of this loop."""
        completions = cls._all.get(loop)
        if completions is None:
            completions = cls._all[loop] = cls(loop)
        return completions

    # -- in worker threads

    def run(self, future: Outcome[Any], fn: Callable[[], object]) -> None:
        """Call `fn()`, and send its outcome to the event loop."""
        self.post(future, *_tried(fn))

    def run_apart(self, future: Outcome[Any], fn: Callable[[], object]) -> None:
        """Do the same in a thread that is no worker yet."""
        self._call_in_loop(partial(future.settle, *_tried(fn)))

    def post(self, future: Outcome[Any], result: Any, error: BaseException | None) -> None:
        """Send an outcome to the event loop. Between `add_worker` and `remove_worker` of this thread."""
        # Append first, then read the flag: `deliver` clears the flag first, then empties the queue.
        self._pending.append((future, result, error))
        if not self._woken:
            self._woken = True
            if self._wake_fd is None:
                self._call_in_loop(self.deliver)
            else:
                os.eventfd_write(self._wake_fd, 1)

    def remove_worker(self) -> None:
        """Note that this thread sends no more outcomes."""
        self._call_in_loop(self._removed)

    def _call_in_loop(self, fn: Callable[[], object]) -> None:
        loop = self._loop()
        if loop is not None:
            try:
                loop.call_soon_threadsafe(fn)
            except RuntimeError:  # closed: nothing awaits there, and what is pending would keep it alive
                self._pending.clear()

    # -- in the event loop

    def add_worker(self) -> None:
        """Note that one more thread will send outcomes."""
        self._workers += 1
        loop = asyncio.get_running_loop()
        if self._wake_fd is None and _waits_for_descriptors(loop) and hasattr(os, "eventfd"):
            try:
                fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            except OSError:  # no descriptor is left, or the system refuses this call: it can be done without
                return
            Context().run(loop.add_reader, fd, self.deliver)  # not in that of the caller, which it would keep
            self._wake_fd = fd

    def _removed(self) -> None:
        self._workers -= 1
        if not self._workers and self._wake_fd is not None:
            asyncio.get_running_loop().remove_reader(self._wake_fd)
            self._close()
            self.deliver()  # what the last of them has sent

    def _close(self) -> None:
        fd, self._wake_fd = self._wake_fd, None
        if fd is not None:
            os.close(fd)

    __del__ = _close  # of a loop that was closed before its connections

    def deliver(self) -> None:
        """Settle all pending outcomes."""
        pending, future = self._pending, None
        try:
            if self._wake_fd is not None:
                try:  # noqa: SIM105 - suppress() takes longer than all of the rest
                    os.eventfd_read(self._wake_fd)
                except BlockingIOError:
                    pass  # it has not woken the loop
            self._woken = False
            completed = self.limiter.completed
            for _ in range(len(pending)):  # not those that come meanwhile: the loop has other work, too
                if not pending:  # a task has run the loop inside itself, as nest_asyncio lets it
                    break
                future, result, error = pending.popleft()
                completed(future, None)
                future.settle(result, error)
            future = error = None
        except BaseException:  # SystemExit or KeyboardInterrupt, also of a task: the loop may run again
            if future is not None and not future.done():
                pending.appendleft((future, result, error))  # pyright: ignore[reportPossiblyUnboundVariable]
            asyncio.get_running_loop().call_soon(self.deliver)
            raise
        self.limiter.start_delayed_soon()
