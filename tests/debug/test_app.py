from __future__ import annotations

import ast
import asyncio
import gc
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiosqlite
import httpx
import pytest

import aiosqlitepool.debug
from aiosqlitepool import SQLiteConnectionPool, SQLiteDatabase
from aiosqlitepool.debug import DebugApp

from ..support.pools import StubPool, pool_of, queued
from ..support.stub import StubDriver, settle

EVIL = "<script>alert(1)</script>\"'></title>\u2028\ud800"
PAGE = Path(aiosqlitepool.debug.__file__).parent / "page"


def client_of(app: Any, root_path: str = "") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, root_path=root_path)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


@pytest.fixture
async def pool(driver: StubDriver) -> AsyncIterator[StubPool]:
    async with pool_of(driver, 2) as pool:
        yield pool


@pytest.fixture
async def client(pool: StubPool) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(DebugApp(pool)) as client:
        yield client


# -- what it answers


async def test_its_root_is_a_page_that_loads_only_its_own_files(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert 'src="page.js"' in page.text
    assert "http:" not in page.text
    assert "https:" not in page.text


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/page.css", "text/css; charset=utf-8"),
        *(
            (f"/{name}.js", "text/javascript; charset=utf-8")
            for name in ("page", "pool", "statements", "tabs", "dom", "words")
        ),
        ("/icon.svg", "image/svg+xml"),
    ],
)
async def test_it_serves_the_files_of_its_page(client: httpx.AsyncClient, path: str, kind: str) -> None:
    file = await client.get(path)
    assert (file.status_code, file.headers["content-type"]) == (200, kind)
    assert file.content == (PAGE / path[1:]).read_bytes()


async def test_data_json_is_the_pools_at_this_moment(client: httpx.AsyncClient, pool: StubPool) -> None:
    async with pool.connection(label="GET /users"):
        data = (await client.get("/data.json")).json()
    assert (data["version"], data["stacks"]) == (aiosqlitepool.__version__, False)
    (shown,) = data["pools"]
    assert (shown["pool"], shown["used"], shown["holders"][0]["label"]) == ("app.db", 1, "GET /users")
    assert data["since"] <= data["at"]


async def test_everything_has_its_length_and_a_head(client: httpx.AsyncClient) -> None:
    for path in ("/", "/page.js", "/data.json", "/none"):
        head = await client.head(path)
        assert (head.content, head.status_code) == (b"", 404 if path == "/none" else 200)
        assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize(
    "path", ["/index.html", "/page", "/../app.py", "/%2e%2e/app.py", "//data.json", "/data.json/x"]
)
async def test_there_is_nothing_else(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(httpx.URL("http://test", raw_path=path.encode()))).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/data.json", "/none"])
async def test_it_only_shows(client: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, path, content=b"x")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_every_file_of_the_page_is_served(client: httpx.AsyncClient) -> None:
    names = {file.name for file in PAGE.iterdir()} - {"index.html"}
    assert {name: (await client.get(f"/{name}")).status_code for name in names} == dict.fromkeys(names, 200)


# -- who may look


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/icon.svg", "/data.json", "/none"])
async def test_nothing_is_stored_sniffed_framed_or_shared(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert not [name for name in headers if name.startswith("access-control")]


async def test_the_page_may_run_and_load_only_what_is_its_own(client: httpx.AsyncClient) -> None:
    policy = (await client.get("/")).headers["content-security-policy"]
    rules = {name: value for name, _, value in (rule.strip().partition(" ") for rule in policy.split(";"))}
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == rules["img-src"] == "'self'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in policy


def test_the_page_has_no_inline_script_style_or_handler() -> None:
    page = (PAGE / "index.html").read_text()
    assert not re.search(r"\son\w+\s*=", page)
    assert page.count("<script") == page.count('<script src="page.js" type="module"></script>') == 1
    assert "<style" not in page
    assert " style=" not in page


def test_the_script_never_makes_markup_of_text() -> None:
    script = "".join(file.read_text() for file in PAGE.glob("*.js"))
    sinks = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc")
    assert not [sink for sink in sinks if sink in script]


async def test_a_label_cannot_leave_the_json(pool: StubPool, client: httpx.AsyncClient) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.set_name(EVIL)
    async with pool.connection(label=EVIL):
        answer = await client.get("/data.json")
        assert answer.headers["content-type"] == "application/json"
        holder = json.loads(answer.content)["pools"][0]["holders"][0]
        assert (holder["label"], holder["task"]) == (EVIL, EVIL)
        assert "alert" not in (await client.get("/")).text


# -- statements


@pytest.fixture
async def shop(database: Path) -> AsyncIterator[SQLiteDatabase]:
    """One that has read and written, and whose statements have values in them."""
    async with SQLiteDatabase(database, name="shop") as shop:
        await shop.execute("INSERT INTO note (text) VALUES ('hush')", label=EVIL)
        await shop.fetch_all("SELECT text FROM note WHERE text = 'hush' /* hush */")
        async with shop.read() as connection:
            await connection.execute("PRAGMA key = 'hush'")
        yield shop


async def statements_in(app: DebugApp, query: str) -> dict[str, list[str] | None]:
    """The statements of each pool, or none if there is not even a list."""
    async with client_of(app) as client:
        answer = await client.get(httpx.URL("http://test", raw_path=f"/data.json{query}".encode()))
    assert answer.headers["content-type"] == "application/json"
    return {
        pool["pool"]: [row["statement"] for row in pool["statements"]] if "statements" in pool else None
        for pool in json.loads(answer.content)["pools"]
    }


async def test_statements_are_in_data_json_only_if_it_is_asked_for_them(shop: SQLiteDatabase) -> None:
    app = DebugApp(shop)
    written, read = ([row.statement for row in pool.statements()] for pool in (shop.writer, shop.readers))
    assert "INSERT INTO note (text) VALUES (?)" in written
    assert {"SELECT text FROM note WHERE text = ?", "PRAGMA key = ?"} <= set(read)
    assert await statements_in(app, "") == {"shop/write": None, "shop/read": None}
    assert await statements_in(app, "?statements") == {"shop/write": written, "shop/read": read}
    assert await statements_in(app, "?statements=shop%2Fread") == {"shop/write": None, "shop/read": read}
    assert await statements_in(app, "?x=1&statements=shop/read&statements=shop/write") == {
        "shop/write": written,
        "shop/read": read,
    }


@pytest.mark.parametrize("query", ["?", "?statements=other", "?&&=&%", "?statements=%ff%00", "?statement"])
async def test_what_names_no_pool_asks_for_no_statements(shop: SQLiteDatabase, query: str) -> None:
    assert await statements_in(DebugApp(shop), query) == {"shop/write": None, "shop/read": None}


async def test_no_value_of_a_statement_is_in_data_json(shop: SQLiteDatabase) -> None:
    app = DebugApp(shop)
    async with shop.write() as connection:
        await connection.execute("INSERT INTO note (text) VALUES (?)", ("hush",))
        shown = json.dumps(app.snapshot(statements=True))
    assert "INSERT INTO note (text) VALUES (?)" in shown
    assert "hush" not in shown


async def test_five_hundred_long_statements_are_not_in_what_is_asked_every_second(database: Path) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, name="app.db") as pool:
        app = DebugApp(pool)
        async with pool.connection() as connection:
            for number in range(500):
                await connection.execute(f"SELECT 1 AS a{number}, 2 AS {'x' * 3_000}")
            await connection.execute(f"SELECT 1 /* {'y' * 1_000_000} */")
            without, all_of_them = app.snapshot(), app.snapshot(statements=["app.db"])
    kept = all_of_them["pools"][0]
    assert len(json.dumps(without)) < 30_000
    assert len(json.dumps(all_of_them)) < 1_500_000
    assert len(kept["statements"]) + kept["statements_forgotten"] == 501


# -- where it is mounted


@pytest.mark.parametrize("root_path", ["", "/debug/pool", "/api/debug/pool/"])
async def test_it_finds_its_files_below_a_root_path_that_is_in_the_path(pool: StubPool, root_path: str) -> None:
    async with client_of(DebugApp(pool), root_path) as client:
        for path in ("/", "/data.json", "/page.js"):
            assert (await client.get(root_path.rstrip("/") + path)).status_code == 200


async def test_it_finds_its_files_below_a_root_path_that_was_cut_off(pool: StubPool) -> None:
    async with client_of(DebugApp(pool), "/debug/pool") as client:
        for path in ("/", "/data.json", "/page.js"):
            assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("asked", "location"),
    [
        ("/debug/pool", "./pool/"),
        ("/pool%20of/x%3Ay", "./x%3Ay/"),
        ("/javascript:alert(1)", "./javascript%3Aalert%281%29/"),
        ("//evil.test", "./evil.test/"),
    ],
)
async def test_without_its_slash_it_sends_the_browser_to_where_relative_links_work(
    pool: StubPool, asked: str, location: str
) -> None:
    async with client_of(DebugApp(pool), httpx.URL("http://test", raw_path=asked.encode()).path) as client:
        answer = await client.get(httpx.URL("http://test", raw_path=asked.encode()))
    assert (answer.status_code, answer.headers["location"]) == (307, location)


async def test_a_server_without_raw_path_will_do(pool: StubPool) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/debug", "root_path": "/debug", "headers": []}
    await DebugApp(pool)(scope, None, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 307
    assert (b"location", b"./debug/") in sent[0]["headers"]


async def test_a_websocket_is_refused_and_a_lifespan_let_pass(pool: StubPool) -> None:
    app, sent = DebugApp(pool), []
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "websocket", "path": "/"}, receive, send)
    await app({"type": "lifespan"}, receive, send)
    assert [message["type"] for message in sent] == [
        "websocket.close",
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


# -- which pools


def shown(app: DebugApp) -> list[str]:
    return [pool["pool"] for pool in app.snapshot()["pools"]]


async def test_it_shows_several_pools_each_once(driver: StubDriver, pool: StubPool) -> None:
    async with pool_of(driver, name="other.db") as other:
        assert shown(DebugApp(other, pool, other)) == ["other.db", "app.db"]


async def test_without_pools_it_shows_all_of_the_process_also_those_made_later(driver: StubDriver) -> None:
    app = DebugApp()
    try:
        later: StubPool = SQLiteConnectionPool(driver, name="later.db")
        assert "later.db" in shown(app)
        del later
        gc.collect()
        assert "later.db" not in shown(app)
    finally:
        app.detach()


async def test_with_each_new_pool_it_forgets_those_that_no_longer_exist(driver: StubDriver) -> None:
    app = DebugApp()
    try:
        gone = pool_of(driver)
        before = len(app._monitors)
        del gone
        gc.collect()
        pool = pool_of(driver)
        assert app._monitors[-1].pool is pool
        assert len(app._monitors) <= before
    finally:
        app.detach()


async def test_two_apps_show_one_pool_independently(pool: StubPool) -> None:
    first, second = DebugApp(pool), DebugApp(pool)
    first.detach()
    async with pool.connection():
        pass
    assert (shown(first), shown(second)) == ([], ["app.db"])
    assert second.snapshot()["pools"][0]["counts"]["acquire_wait"] == 1


async def test_detached_it_leaves_nothing_on_the_pool(pool: StubPool) -> None:
    app = DebugApp(pool)
    assert pool.events.handlers
    app.detach()
    app.detach()
    assert not pool.events.handlers


async def test_a_closed_pool_is_shown_as_closed(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        app = DebugApp(pool)
        waiter = await queued(pool)
        await pool.release(await waiter)
    assert app.snapshot()["pools"][0]["state"] == "closed"
    await settle()


async def test_stacks_are_shown_only_to_who_asked_for_them(pool: StubPool) -> None:
    without, with_stacks = DebugApp(pool), DebugApp(pool, stacks=True)
    async with pool.connection():
        assert '"stack"' not in json.dumps(without.snapshot()["pools"])
        (line, *_) = with_stacks.snapshot()["pools"][0]["holders"][0]["stack"]
        assert line["file"].endswith("tests/debug/test_app.py")


async def test_a_database_is_shown_as_its_two_pools(pool: StubPool, database: Path) -> None:
    async with SQLiteDatabase(database, name="shop") as db:
        app = DebugApp(pool, db, db.writer)
        assert [shown["pool"] for shown in app.snapshot()["pools"]] == ["app.db", "shop/write", "shop/read"]
        app.detach()


@pytest.mark.parametrize("pools", [("app.db",), (None,), (SQLiteConnectionPool,)])
def test_what_is_no_pool_is_refused_by_name(pools: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match="pools must be SQLiteConnectionPool or SQLiteDatabase, one argument each, not"):
        DebugApp(*pools)


def test_stacks_must_be_a_bool(driver: StubDriver) -> None:
    with pytest.raises(TypeError, match="stacks must be True or False, not 'yes'"):
        DebugApp(SQLiteConnectionPool(driver), stacks="yes")  # type: ignore[arg-type]


# -- what it needs


def test_it_needs_nothing_but_the_package() -> None:
    libraries = ["starlette", "fastapi", "litestar", "prometheus_client", "opentelemetry", "structlog", "rich"]
    code = f"import sys, aiosqlitepool.debug; print([name for name in {libraries} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize("file", sorted(PAGE.parent.glob("*.py")), ids=lambda file: file.name)
def test_it_touches_nothing_of_the_package_that_a_stranger_could_not_import(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level <= 1
            modules = [node.module or ""] if not node.level else []
        elif isinstance(node, ast.Import):
            modules = [each.name for each in node.names]
        else:
            continue
        ours = {module for module in modules if module.partition(".")[0] == "aiosqlitepool"}
        assert ours <= {"aiosqlitepool", "aiosqlitepool.events"}
