"""What `read()` and `write()` return: a block that says so if it is not entered by `async with`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, _AsyncGeneratorContextManager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, cast

import aiosqlite

from ..errors import PoolUsageError

__all__ = ["database_block"]

P = ParamSpec("P")

_USE = "`async with db.write() as connection:`"


class _Block(_AsyncGeneratorContextManager[Any]):
    if not TYPE_CHECKING:  # pragma: no branch - type checkers report these uses themselves

        def __await__(self):
            raise PoolUsageError(f"use `async with`, such as {_USE}")

        def __enter__(self):
            raise PoolUsageError(f"use `async with`, such as {_USE}")

        def __exit__(self, *_):
            """Never called. Python looks it up before it calls `__enter__`."""

        def __getattr__(self, name):
            hint = f"it is no connection yet: {_USE} acquires one"
            raise AttributeError(f"a block has no attribute {name!r}; {hint}", name=name, obj=self)


def database_block(
    fn: Callable[P, AsyncIterator[aiosqlite.Connection]],
) -> Callable[P, AbstractAsyncContextManager[aiosqlite.Connection]]:
    """Make a context manager of an async generator function, as `contextlib.asynccontextmanager` does."""

    generator = cast(Callable[..., AsyncGenerator[Any, None]], fn)  # once: to make the type costs more than the block

    @wraps(fn)
    def block(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        return _Block(generator, args, kwargs)

    return block
