"""An ASGI app over real HTTP, on a free port of this machine, in the running loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

__all__ = ["served"]


@asynccontextmanager
async def served(app: Any, **settings: Any) -> AsyncIterator[str]:
    """Serve until the block ends; gives the address, without a slash at its end."""
    config = uvicorn.Config(app, port=0, log_level="warning", ws="none", timeout_graceful_shutdown=5, **settings)
    server = uvicorn.Server(config)
    # Not serve(), which would take over Ctrl-C.
    serving = asyncio.create_task(server._serve())
    while not server.started:
        assert not serving.done(), "the server did not start"
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
