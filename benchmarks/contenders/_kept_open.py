"""Connections that are kept open without a pool: each task uses one of them, in turn."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import ContextVar
from itertools import cycle
from typing import Any

__all__ = ["KeptOpen"]


class KeptOpen:
    """Hands out these connections: the same one to a task each time."""

    def __init__(self, connections: Iterable[Any]) -> None:
        self.connections = tuple(connections)
        self._next = cycle(self.connections)
        self._mine: ContextVar[Any] = ContextVar("mine")

    def connection(self) -> AbstractAsyncContextManager[Any]:
        conn = self._mine.get(None)
        if conn is None:
            conn = next(self._next)
            self._mine.set(conn)
        return nullcontext(conn)
