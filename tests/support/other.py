"""Another process with a connection of its own to the same file, which does what it is told and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

__all__ = ["Other", "other_process"]

_PROGRAM = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
print("ready", flush=True)
for line in sys.stdin:
    try:
        print(connection.execute(line).fetchall(), flush=True)
    except sqlite3.Error as error:
        print(repr(error), flush=True)
connection.close()
"""


class Other:
    """The process, seen from here."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def hear(self) -> str:
        """What it says next."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    async def does(self, statement: str) -> str:
        """Have it run a statement; returns the rows, or the error, as it printed them."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{statement}\n".encode())
        return await self.hear()


@contextlib.asynccontextmanager
async def other_process(path: Path, *statements: str) -> AsyncIterator[Other]:
    """The process, after it has run these statements; it ends, and all its locks with it, when the block does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM, str(path)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    other = Other(process)
    try:
        assert await other.hear() == "ready"
        for statement in statements:
            assert await other.does(statement) == "[]"
        yield other
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
