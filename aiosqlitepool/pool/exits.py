"""Pools that outlive their welcome: a program that ends, or forks, without closing them.

Worker threads that nobody stops would hold the interpreter for ever; SQLite connections must not cross a fork.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import Protocol

__all__ = ["forget", "watch"]


class Exiting(Protocol):
    """What an open pool does when its process ends or forks."""

    def abandon_at_exit(self) -> None:
        """Say what was left open and let it close by itself."""
        ...

    def forked(self) -> None:
        """Be useless from now on: this is the child."""
        ...


_open: weakref.WeakSet[Exiting] = weakref.WeakSet()


def watch(pool: Exiting) -> None:
    """Look after an open pool."""
    _open.add(pool)


def forget(pool: Exiting) -> None:
    """The pool was closed properly."""
    _open.discard(pool)


def abandon_all() -> None:
    """Abandon every pool still open."""
    for pool in tuple(_open):
        pool.abandon_at_exit()


def fork_all() -> None:
    """Tell every open pool that it is in a forked child."""
    for pool in tuple(_open):
        pool.forked()


# atexit runs only after every non-daemon thread has ended, which the threads of forgotten connections never do.
# concurrent.futures leans on the same hook for the same reason.
getattr(threading, "_register_atexit", atexit.register)(abandon_all)
if hasattr(os, "register_at_fork"):  # a system without it cannot fork
    os.register_at_fork(after_in_child=fork_all)
