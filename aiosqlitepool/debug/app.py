"""`DebugApp`: the page and its JSON over ASGI 3, in any framework. Knows requests; `monitor` knows pools.

Every response comes from memory, and no request changes anything. Labels, statements and error messages may have been
chosen by an attacker: they are sent as JSON only, and the page can run and load nothing but its own files.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote

import aiosqlitepool
from aiosqlitepool import SQLiteConnectionPool, SQLiteDatabase, subscribe_all

from .monitor import Monitor
from .recent import WINDOW

__all__ = ["DebugApp"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_JSON, _TEXT = "application/json", "text/plain; charset=utf-8"
_SCRIPT = "text/javascript; charset=utf-8"
# The files of `page/` that are served, and no others.
_FILES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": _SCRIPT,
    "pool.js": _SCRIPT,
    "statements.js": _SCRIPT,
    "tabs.js": _SCRIPT,
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
    """An ASGI app that shows the current state of pools: a page at its root, the same data as JSON at `data.json`.

    With `?statements`, `data.json` has the statements of the pools too, up to 500 of each; with `?statements=NAME`,
    which may be repeated, those of one pool.

    Mount the app where only people who may read labels, task names and statements can reach it. It records events from
    its construction on, a bounded number, and shows the pools of its own process.

    Args:
        pools: the pools and databases to show; if none is given, every pool of the process, present and future.
        stacks: whether to show the stacks of the tasks that hold a connection: paths, names and lines of code.

    Raises:
        TypeError: one of `pools` is neither a pool nor a database, or `stacks` is not a bool.
    """

    def __init__(self, *pools: SQLiteConnectionPool[Any] | SQLiteDatabase, stacks: bool = False) -> None:
        if not isinstance(stacks, bool):
            raise TypeError(f"stacks must be True or False, not {stacks!r}")
        shown = dict.fromkeys(pool for each in pools for pool in _pools_of(each))
        self._stacks = stacks
        self._since = time.time()
        self._monitors: list[Monitor] = []
        self._end_all: Callable[[], None] | None = None if pools else subscribe_all(self)
        for pool in shown:
            self.attach(pool)
        page = files("aiosqlitepool.debug").joinpath("page")
        self._files = {name: _Answer(200, kind, page.joinpath(name).read_bytes()) for name, kind in _FILES.items()}
        self._index = self._files.pop("index.html")

    def attach(self, pool: SQLiteConnectionPool[Any], /) -> Callable[[], None]:
        """Show this pool too. Returns a function that ends it."""
        for gone in [each for each in self._monitors if each.pool is None]:
            self._forget(gone)
        monitor = Monitor(pool, self._stacks)
        self._monitors = [*self._monitors, monitor]
        return lambda: self._forget(monitor)

    def _forget(self, monitor: Monitor) -> None:
        monitor.detach()
        self._monitors = [each for each in self._monitors if each is not monitor]

    def detach(self) -> None:
        """Show no pools any more, and end all subscriptions."""
        if self._end_all is not None:
            self._end_all()
        for monitor in self._monitors:
            self._forget(monitor)

    def snapshot(self, *, statements: bool | Collection[str] = False) -> dict[str, Any]:
        """Return the content of `data.json` as plain data. Times are seconds; `at` and `since` count from the epoch.

        Args:
            statements: the names of the pools whose statements are included, or True for every pool. Up to 12 ms for
                500 statements of a pool, so they are left out by default.
        """
        pools = (monitor.snapshot(statements=statements) for monitor in self._monitors)
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
        """Answer one request. A WebSocket is refused; lifespan events are acknowledged."""
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
            return _Answer(405, _TEXT, b"This page is read-only.\n", {"allow": "GET, HEAD"})
        path = _path_below_mount(scope)
        if path == "":
            # The links of the page are relative, so its address must end with a slash.
            return _redirect(scope) or self._index
        if path == "data.json":
            return _Answer(200, _JSON, json.dumps(self.snapshot(statements=_statements_wanted(scope))).encode())
        return self._files.get(path) or _Answer(404, _TEXT, b"Not found.\n")


def _pools_of(shown: object) -> tuple[SQLiteConnectionPool[Any], ...]:
    if isinstance(shown, SQLiteDatabase):
        return shown.writer, shown.readers
    if not isinstance(shown, SQLiteConnectionPool):
        kind = type(shown).__name__
        raise TypeError(
            f"pools must be SQLiteConnectionPool or SQLiteDatabase, one argument each, not {shown!r} ({kind})"
        )
    return (shown,)


def _path_below_mount(scope: Scope) -> str:
    # Starlette keeps the mount in `path` and names it in `root_path`; others remove it. Litestar adds a slash.
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    below = path[len(root) :] if root and f"{path}/".startswith(f"{root}/") else path
    return str(below).removeprefix("/").removesuffix("/")


def _statements_wanted(scope: Scope) -> bool | Collection[str]:
    """Return the pools that the query names, or whether it wants the statements of all."""
    names = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True).get("statements", [])
    return "" in names or names


def _redirect(scope: Scope) -> _Answer | None:
    """Redirect to the same address with a slash, if it has none. Relative: a proxy may have removed a prefix."""
    # Litestar normalises `path`; `raw_path` is what the browser requested.
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
