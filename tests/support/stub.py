"""A driver that does nothing, and does it the way a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

Script = Callable[["StubConnection"], Awaitable[Any]]


async def _nothing(connection: StubConnection) -> None:
    return None


class StubConnection:
    """Counts its calls; what each call does can be replaced: `on_rollback=fails(OSError())`."""

    def __init__(
        self,
        number: int = 1,
        *,
        on_execute: Script = _nothing,
        on_rollback: Script = _nothing,
        on_close: Script = _nothing,
    ) -> None:
        self.number = number
        self.on_execute, self.on_rollback, self.on_close = on_execute, on_rollback, on_close
        self.executed: list[str] = []
        self.rollbacks = 0
        self.closed = 0

    async def execute(self, sql: str, *args: Any) -> StubConnection:
        self.executed.append(sql)
        await self.on_execute(self)
        return self

    async def rollback(self) -> None:
        self.rollbacks += 1
        await self.on_rollback(self)

    async def close(self) -> None:
        self.closed += 1
        await self.on_close(self)


class StubDriver:
    """A connection factory that remembers what it made. `on_connect` runs before each connection is made."""

    def __init__(self, **scripts: Script) -> None:
        self.connections: list[StubConnection] = []
        self.attempts = 0
        self.on_connect: Callable[[], Awaitable[Any]] | None = None
        self.scripts = scripts

    async def __call__(self) -> StubConnection:
        self.attempts += 1
        if self.on_connect is not None:
            await self.on_connect()
        connection = StubConnection(len(self.connections) + 1, **self.scripts)
        self.connections.append(connection)
        return connection

    @property
    def open(self) -> int:
        """How many of the connections it made are not closed."""
        return sum(1 for connection in self.connections if not connection.closed)


def fails(error: BaseException) -> Callable[..., Awaitable[Any]]:
    """A script that raises."""

    async def script(*_: object) -> None:
        raise error

    return script


def hangs(*_: object) -> Awaitable[Any]:
    """A script that never ends by itself."""
    return asyncio.get_running_loop().create_future()


def waits_for(event: asyncio.Event) -> Callable[..., Awaitable[Any]]:
    """A script that ends when the test says so."""

    async def script(*_: object) -> None:
        await event.wait()

    return script


async def settle(turns: int = 20) -> None:
    """Let everything that can run, run."""
    for _ in range(turns):
        await asyncio.sleep(0)
