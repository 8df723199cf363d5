"""`DebugApp`: the page and its JSON over ASGI 3, whatever it is mounted in. Knows requests; `monitor` knows pools.

Everything is answered from memory and nothing can be changed. What a browser gets carries labels and messages that a
stranger may have chosen, so they travel as JSON only, and the page may run and load nothing but its own files.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import quote

import aiosqlitepool
from aiosqlitepool import SQLiteConnectionPool, subscribe_all

from .monitor import Monitor
from .recent import WINDOW

__all__ = ["DebugApp"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_JSON, _TEXT = "application/json", "text/plain; charset=utf-8"
_SCRIPT = "text/javascript; charset=utf-8"
# The files of `page/`. Listed, so that nothing else that may come to lie there is ever served.
_FILES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": _SCRIPT,
    "pool.js": _SCRIPT,
    "dom.js": _SCRIPT,
    "words.js": _SCRIPT,
    "icon.svg": "image/svg+xml",
}
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class _Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes
    more: dict[str, str] = {}  # noqa: RUF012 - a tuple's default, never written to


class DebugApp:
    """An ASGI app that shows pools as they are now: a page at its root, the same as JSON at `data.json`.

    Mount it where only those can come who may read labels and task names. What it remembers begins when it is made,
    and is bounded. It shows the pools of its own process.

    Args:
        pools: the pools to show; if none is given, every pool of the process, also those made later.
        stacks: show where the tasks that hold a connection stand: paths, names and lines of the program's code.

    Raises `TypeError` for what is no pool.
    """

    def __init__(self, *pools: SQLiteConnectionPool[Any], stacks: bool = False) -> None:
        for pool in pools:
            if not isinstance(pool, SQLiteConnectionPool):
                raise TypeError(f"pools must be SQLiteConnectionPool, not {pool!r} ({type(pool).__name__})")
        if not isinstance(stacks, bool):
            raise TypeError(f"stacks must be True or False, not {stacks!r}")
        self._stacks = stacks
        self._since = time.time()
        self._monitors: list[Monitor] = []
        self._end_all: Callable[[], None] | None = None if pools else subscribe_all(self)
        for pool in dict.fromkeys(pools):
            self.attach(pool)
        page = files("aiosqlitepool.debug").joinpath("page")
        self._files = {name: _Answer(200, kind, page.joinpath(name).read_bytes()) for name, kind in _FILES.items()}
        self._index = self._files.pop("index.html")

    def attach(self, pool: SQLiteConnectionPool[Any], /) -> Callable[[], None]:
        """Show this pool too; returns what ends it."""
        monitor = Monitor(pool, self._stacks)
        self._monitors = [*(each for each in self._monitors if each.pool is not None), monitor]
        return lambda: self._forget(monitor)

    def _forget(self, monitor: Monitor) -> None:
        monitor.detach()
        self._monitors = [each for each in self._monitors if each is not monitor]

    def detach(self) -> None:
        """Show no pool any more, and listen to none."""
        if self._end_all is not None:
            self._end_all()
        for monitor in self._monitors:
            self._forget(monitor)

    def snapshot(self) -> dict[str, Any]:
        """What `data.json` shows, as plain data. All times are seconds, `at` and `since` those since the epoch."""
        pools = (monitor.snapshot() for monitor in self._monitors)
        return {
            "version": aiosqlitepool.__version__,
            "pid": os.getpid(),
            "at": time.time(),
            "since": self._since,
            "window": WINDOW,
            "stacks": self._stacks,
            "pools": [pool for pool in pools if pool is not None],
        }

    # -- ASGI

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. A WebSocket is refused; the lifespan of a server is let pass."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            answer = self._answer(scope)
            await send({"type": "http.response.start", "status": answer.status, "headers": _headers(answer)})
            body = b"" if scope["method"] == "HEAD" else answer.body
            await send({"type": "http.response.body", "body": body})

    def _answer(self, scope: Scope) -> _Answer:
        if scope["method"] not in ("GET", "HEAD"):
            return _Answer(405, _TEXT, b"This page only shows.\n", {"allow": "GET, HEAD"})
        path = _path_below_mount(scope)
        if path == "":
            # The page's links are relative, so its own address must end with a slash.
            return _redirect(scope) or self._index
        if path == "data.json":
            return _Answer(200, _JSON, json.dumps(self.snapshot()).encode())
        return self._files.get(path) or _Answer(404, _TEXT, b"There is no such page.\n")


def _path_below_mount(scope: Scope) -> str:
    # Starlette leaves the path whole and names the mount in `root_path`; others cut it off. Litestar adds a slash.
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    below = path[len(root) :] if root and f"{path}/".startswith(f"{root}/") else path
    return str(below).removeprefix("/").removesuffix("/")


def _redirect(scope: Scope) -> _Answer | None:
    """To the same address with a slash, if it has none. Relative, since no proxy in front told what it cut off."""
    # Litestar normalises `path`; only this is what the browser asked for.
    asked = scope.get("raw_path") or quote(scope["path"]).encode()
    if asked.endswith(b"/") or not asked:
        return None
    last = asked.decode("latin-1").rpartition("/")[2]
    return _Answer(307, _TEXT, b"", {"location": f"./{quote(last, safe='%')}/"})


def _headers(answer: _Answer) -> list[tuple[bytes, bytes]]:
    pairs: Iterable[tuple[str, str]] = {
        "content-type": answer.content_type,
        "content-length": str(len(answer.body)),
        **_HEADERS,
        **answer.more,
    }.items()
    return [(name.encode(), value.encode()) for name, value in pairs]


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
