"""Take the pictures of the debug page that the README shows: a real pool under real load, in a real Chromium.

    python docs/screenshot_debug.py [--seconds 80] [--chromium /usr/bin/chromium]

Writes debug.png and statements.png to docs/images, and debug-dark.png and statements-dark.png. Needs the development
dependencies and Chromium.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import random
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiosqlite
import uvicorn
from playwright.async_api import async_playwright
from starlette.applications import Starlette
from starlette.routing import Mount

from aiosqlitepool import PoolConnectionAcquireTimeoutError, SQLiteConnectionPool
from aiosqlitepool.debug import DebugApp

IMAGES = Path(__file__).parent / "images"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
FLAGS += ["--disable-component-update", "--disable-sync"]

# The picture is of a pool at work, with a queue that is as long as the list of holders beside it.
BUSY = "() => [8, 9, 10, 11].includes(document.querySelectorAll('[data-is=waiters] > li').length)"
# The first plan that is marked is open.
OPENED = """() => {
  const plan = document.querySelector(".warning:not([hidden])")?.closest(".plan");
  if (plan) plan.open = true;
  return plan?.querySelector("li");
}"""

Pool = SQLiteConnectionPool[aiosqlite.Connection]


# -- the program to look at


async def read_users(pool: Pool, chosen: int) -> None:
    async with pool.connection(label="GET /users/{id}") as db:
        await db.execute_fetchall("SELECT * FROM users WHERE id = ?", (chosen,))
        await asyncio.sleep(random.expovariate(1 / 0.010))


async def search(pool: Pool, chosen: int) -> None:
    async with pool.connection(label="GET /search") as db:
        await db.execute_fetchall(
            "SELECT count(*) FROM users WHERE name LIKE ?", (f"%{chosen}%",)
        )
        await asyncio.sleep(random.expovariate(1 / 0.080))


async def place_order(pool: Pool, chosen: int) -> None:
    async with pool.connection(label="POST /orders") as db:
        await db.execute("BEGIN IMMEDIATE")
        await db.execute("INSERT INTO orders (user) VALUES (?)", (chosen,))
        await asyncio.sleep(random.expovariate(1 / 0.020))
        if chosen % 40:  # else it forgets to commit
            await db.commit()


async def nightly_report(pool: Pool) -> None:
    while True:
        async with pool.connection(label="nightly report") as db:
            await db.execute_fetchall("SELECT user, count(*) FROM orders GROUP BY user")
            await asyncio.sleep(random.uniform(3, 9))
        await asyncio.sleep(1)


async def client(pool: Pool, number: int, began: float) -> None:
    loop = asyncio.get_running_loop()
    requests = [read_users] * 6 + [search] * 3 + [place_order]
    while True:
        # Fewer clients are busy at some times than at others.
        busy = 0.5 + 0.5 * math.sin((loop.time() - began) / 7)
        if number / 30 < busy**2:
            with contextlib.suppress(PoolConnectionAcquireTimeoutError):
                await random.choice(requests)(pool, random.randint(1, 2000))
        await asyncio.sleep(random.expovariate(1 / 0.08))


@contextlib.asynccontextmanager
async def busy_pool(folder: Path) -> AsyncIterator[Pool]:
    async def connect() -> aiosqlite.Connection:
        db = await aiosqlite.connect(folder / "shop.db", isolation_level=None)
        await db.execute("PRAGMA busy_timeout = 5000")
        return db

    async with aiosqlite.connect(folder / "shop.db") as db:
        await db.executescript("""
            PRAGMA journal_mode = WAL;
            CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);
            CREATE TABLE orders (id INTEGER PRIMARY KEY, user INTEGER);
        """)
        await db.executemany(
            "INSERT INTO users (name) VALUES (?)",
            [(f"user {number}",) for number in range(20_000)],
        )
        await db.commit()
    async with SQLiteConnectionPool(
        connect, 6, 0.35, name="shop.db", min_size=2, slow_statement=0.001
    ) as pool:
        yield pool


@contextlib.asynccontextmanager
async def load(pool: Pool) -> AsyncIterator[None]:
    began = asyncio.get_running_loop().time()
    work = [
        asyncio.create_task(client(pool, number, began), name=f"client-{number}")
        for number in range(30)
    ]
    work.append(asyncio.create_task(nightly_report(pool), name="reporter"))
    try:
        yield
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


@contextlib.asynccontextmanager
async def served(pool: Pool) -> AsyncIterator[str]:
    app = Starlette(routes=[Mount("/debug/pool", DebugApp(pool))])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="none"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/debug/pool/"
    server.should_exit = True
    await serving


# -- the pictures


async def photograph(url: str, chromium: str, seconds: float) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = await browser.new_page(
            viewport={"width": 1200, "height": 1080}, device_scale_factor=1.5
        )
        await page.goto(url)
        await asyncio.sleep(seconds)
        IMAGES.mkdir(exist_ok=True)
        for ending, scheme in (("", "light"), ("-dark", "dark")):
            await page.emulate_media(color_scheme=scheme)
            await page.click("[data-is=tab-now]")
            await page.wait_for_function(BUSY)
            await page.screenshot(path=IMAGES / f"debug{ending}.png")
            await page.click("[data-is=tab-statements]")
            await page.wait_for_function(OPENED)
            await page.screenshot(path=IMAGES / f"statements{ending}.png")
        await browser.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description="Take the pictures of the debug page.")
    parser.add_argument(
        "--seconds", type=float, default=80, help="how long the pool is watched first"
    )
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with busy_pool(Path(folder)) as pool, served(pool) as url, load(pool):
            await photograph(url, options.chromium, options.seconds)


if __name__ == "__main__":
    asyncio.run(main())
