"""What `read()` and `write()` return: a block that says so if it is not entered by `async with`, or not nested."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, _AsyncGeneratorContextManager
from functools import wraps
from typing import Any, ParamSpec, cast

import aiosqlite

from ..errors import PoolUsageError
from ..pool.lease import AsyncWith

__all__ = ["check_nested", "database_block"]

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


def check_nested(inside: Sequence[str]) -> None:
    """Raise `PoolUsageError` if blocks inside a block that ends have not ended there: these, by their savepoints."""
    if inside:
        raise PoolUsageError(
            "a write() block inside this one has not ended before it, so both are rolled back: in an async generator "
            "that was not read to its end, say. Wrap that in contextlib.aclosing()"
        )
