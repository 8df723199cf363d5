"""Locks after a fork: a child process has nobody who would release what another thread of its parent held just then.

Without this, a worker that is forked during a scrape would wait for ever where it makes its first pool. Knows nothing
of what the locks are for.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["renew_after_fork"]


class Locked(Protocol):
    """Something that has a lock."""

    def renew_lock(self) -> None:
        """Take a new lock, for nobody holds the old one any more."""
        ...


_locked: weakref.WeakSet[Locked] = weakref.WeakSet()


def renew_after_fork(owner: Locked) -> None:
    """Renew its lock in every child process that is forked from now on, for as long as it exists."""
    _locked.add(owner)


def _renew() -> None:
    for owner in tuple(_locked):
        owner.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
