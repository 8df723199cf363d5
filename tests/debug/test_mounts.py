"""Mounted in each framework, over real HTTP, the way its own documentation mounts an app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import litestar
import pytest
from fastapi import Depends, FastAPI, HTTPException
from litestar.types import Receive, Scope, Send
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount

from aiosqlitepool.debug import DebugApp

from ..support.pools import StubPool, pool_of
from ..support.serving import served
from ..support.stub import StubDriver


def in_fastapi(app: DebugApp) -> Any:
    outer = FastAPI()
    outer.mount("/debug/pool", app)
    return outer


def in_a_fastapi_of_a_fastapi(app: DebugApp) -> Any:
    inner, outer = FastAPI(), FastAPI()
    inner.mount("/pool", app)
    outer.mount("/debug", inner)
    return outer


def in_starlette(app: DebugApp) -> Any:
    return Starlette(routes=[Mount("/debug/pool", app)], middleware=[Middleware(GZipMiddleware)])


def in_litestar(app: DebugApp) -> Any:
    @litestar.asgi("/debug/pool", is_mount=True, copy_scope=True)
    async def pools(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return litestar.Litestar([pools])


MOUNTS = [in_fastapi, in_a_fastapi_of_a_fastapi, in_starlette, in_litestar]
in_each = pytest.mark.parametrize("mounted", MOUNTS, ids=lambda mounted: mounted.__name__)


@pytest.fixture
async def pool(driver: StubDriver) -> AsyncIterator[StubPool]:
    async with pool_of(driver, 2) as pool:
        yield pool


@in_each
@pytest.mark.parametrize("asked", ["/debug/pool", "/debug/pool/"])
async def test_with_or_without_its_slash_the_page_finds_its_files(
    pool: StubPool, mounted: Callable[[DebugApp], Any], asked: str
) -> None:
    async with served(mounted(DebugApp(pool))) as url, httpx.AsyncClient(follow_redirects=True) as client:
        page = await client.get(url + asked)
        assert page.status_code == 200
        assert "<title>Connection pools</title>" in page.text
        assert str(page.url) == f"{url}/debug/pool/"
        for name in ("page.js", "page.css", "icon.svg"):
            assert (await client.get(page.url.join(name))).status_code == 200
        async with pool.connection(label="GET /users"):
            data = (await client.get(page.url.join("data.json"))).json()
        assert data["pools"][0]["holders"][0]["label"] == "GET /users"
        assert (await client.get(page.url.join("none"))).status_code == 404
        assert (await client.post(page.url.join("data.json"))).status_code == 405


@in_each
async def test_behind_a_proxy_that_cuts_off_a_prefix_it_works_too(
    pool: StubPool, mounted: Callable[[DebugApp], Any]
) -> None:
    # uvicorn puts the root path in front of the path, as ASGI wants it.
    async with served(mounted(DebugApp(pool)), root_path="/api") as url, httpx.AsyncClient() as client:
        for path in ("/", "/data.json", "/page.js"):
            assert (await client.get(f"{url}/debug/pool{path}")).status_code == 200


async def test_it_may_be_the_whole_program(pool: StubPool) -> None:
    async with served(DebugApp(pool), lifespan="on") as url, httpx.AsyncClient() as client:
        assert (await client.get(url)).status_code == 200
        assert (await client.get(f"{url}/data.json")).json()["pools"][0]["pool"] == "app.db"


async def test_it_can_be_kept_to_those_whom_the_program_lets_in(pool: StubPool) -> None:
    def operator(key: str = "") -> None:
        if key != "let me in":
            raise HTTPException(403)

    guarded = FastAPI(dependencies=[Depends(operator)])
    app = DebugApp(pool)
    guarded.add_api_route("/debug/data.json", lambda: app.snapshot())
    async with served(guarded) as url, httpx.AsyncClient() as client:
        assert (await client.get(f"{url}/debug/data.json")).status_code == 403
        assert (await client.get(f"{url}/debug/data.json", params={"key": "let me in"})).json()["pools"]
