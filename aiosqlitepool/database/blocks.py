"""What `read()` and `write()` return: a block that says so if it is not entered by `async with`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, _AsyncGeneratorContextManager
from functools import wraps
from typing import Any, ParamSpec, cast

import aiosqlite

from ..pool.lease import AsyncWith

__all__ = ["database_block"]

P = ParamSpec("P")


class _Block(AsyncWith, _AsyncGeneratorContextManager[Any]):
    _use = "`async with db.write() as connection:`"


def database_block(
    fn: Callable[P, AsyncIterator[aiosqlite.Connection]],
) -> Callable[P, AbstractAsyncContextManager[aiosqlite.Connection]]:
    """Make a context manager of an async generator function, as `contextlib.asynccontextmanager` does."""

    generator = cast(Callable[..., AsyncGenerator[Any, None]], fn)  # once: to make the type costs more than the block

    @wraps(fn)
    def block(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        return _Block(generator, args, kwargs)

    return block
