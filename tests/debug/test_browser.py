"""The page in a real Chromium, served by a real server: it updates itself, and nobody's label runs.

Without Chromium these are skipped, except in CI, where they fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from aiosqlitepool import PoolConnectionAcquireTimeoutError
from aiosqlitepool.debug import DebugApp

from ..support.pools import StubPool, pool_of, queued
from ..support.serving import served
from ..support.stub import StubDriver
from .conftest import IN_CHROMIUM, Looking, looking_at

pytestmark = IN_CHROMIUM


@pytest_asyncio.fixture(loop_scope="module")
async def pool(driver: StubDriver) -> AsyncIterator[StubPool]:
    async with pool_of(driver, 2, acquisition_timeout=60) as pool:
        yield pool


@pytest_asyncio.fixture(loop_scope="module")
async def looking(browser: Browser, pool: StubPool) -> AsyncIterator[Looking]:
    async with looking_at(pool, browser) as looking:
        yield looking


async def test_it_shows_who_holds_a_connection_and_when_it_came_back_without_a_reload(
    looking: Looking, pool: StubPool
) -> None:
    holders = looking.rows("holders")
    await expect(looking.part("no-holders")).to_be_visible()
    async with pool.connection(label="GET /users"):
        await expect(holders).to_have_count(1)
        await expect(holders).to_contain_text("GET /users")
        await expect(looking.part("used")).to_have_text("1 of 2")
    await expect(holders).to_have_count(0)
    await expect(looking.part("used")).to_have_text("0 of 2")
    await expect(looking.page.locator("#status")).to_have_text("live")
    assert await looking.page.evaluate("globalThis.sameDocument") is True


async def test_it_shows_who_waits(looking: Looking, pool: StubPool) -> None:
    async with pool.connection(label="first"), pool.connection(label="second"):
        waiter = await queued(pool, "GET /posts")
        await expect(looking.rows("waiters")).to_contain_text("GET /posts")
        await expect(looking.part("waiting")).to_have_text("1")
    await pool.release(await waiter)
    await expect(looking.rows("waiters")).to_have_count(0)


async def test_a_suspected_leak_is_red_and_stays_on_top(browser: Browser, driver: StubDriver) -> None:
    async with pool_of(driver, 2, leak_threshold=0.5) as pool, looking_at(pool, browser) as looking:
        async with pool.connection(label="forgotten"):
            await expect(looking.rows("holders").locator("em")).to_have_text("suspected leak")
            async with pool.connection(label="late"):
                await expect(looking.rows("holders")).to_have_count(2)
                first = looking.rows("holders").first
                await expect(first).to_contain_text("forgotten")
                red = await first.locator("em").evaluate("(node) => getComputedStyle(node).color")
                await expect(first.locator(".time")).to_have_css("color", red)
                await expect(looking.part("slots").locator(".held.suspected")).to_have_count(2)
        await expect(looking.part("slots").locator(".suspected")).to_have_count(0)


SHOWN_ONCE = """async (pool) => {
    const { PoolView } = await import("./pool.js");
    const view = new PoolView(() => {});
    view.show(pool, 100);
    return view.history.map(({ at, used, waiting }) => [at, used, waiting]);
}"""


async def test_the_charts_begin_before_the_page_was_opened(looking: Looking, pool: StubPool) -> None:
    app = DebugApp(pool)
    (shown,) = app.snapshot()["pools"]
    app.detach()
    recent = {"ago": 0.5, "used": [1.0, 2.0], "waiting": [0.0, 3.0]}
    points = await looking.page.evaluate(SHOWN_ONCE, {**shown, "recent": recent})
    assert points == [[98.5, 1, 0], [99.5, 2, 3], [100, 0, 0]]


async def test_bars_say_their_scale(looking: Looking) -> None:
    for panel in ("Holders", "Waiters"):
        heading = looking.page.get_by_role("heading", name=panel)
        await expect(heading).to_contain_text("bars to 30 s, logarithmic")


async def test_it_shows_what_failed(browser: Browser, driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=0) as pool, looking_at(pool, browser) as looking:
        await expect(looking.part("no-failures")).to_be_visible()
        async with pool.connection(label="holder"):
            with pytest.raises(PoolConnectionAcquireTimeoutError):
                await pool.acquire(label="too late")
        await expect(looking.rows("failures")).to_contain_text("too late gave up")
        await expect(looking.part("failed-sub")).to_have_text("1 timeout")


async def test_one_cell_a_slot_tells_its_holder_when_pointed_at(looking: Looking, pool: StubPool) -> None:
    cells = looking.part("slots").locator(".cell")
    await expect(cells).to_have_count(2)
    await expect(looking.part("slots").locator(".vacant")).to_have_count(2)
    async with pool.connection(label="GET /users"):
        await expect(looking.part("slots").locator(".held")).to_have_count(1)
        await cells.first.hover()
        await expect(cells.first.locator(".tip")).to_be_visible()
        await expect(cells.first.locator(".tip")).to_contain_text("GET /users")
        await expect(cells.first.locator(".tip")).to_contain_text("connection 1")
    await expect(looking.part("slots").locator(".idle")).to_have_count(1)


EVIL = "<script>alert('label')</script><img src=x onerror=alert('label')>"


async def test_a_label_with_a_script_is_shown_and_does_nothing(looking: Looking, pool: StubPool) -> None:
    await looking.page.evaluate("addEventListener('securitypolicyviolation', (event) => console.log(event.blockedURI))")
    async with pool.connection(label=EVIL), pool.connection(label=EVIL):
        waiter = await queued(pool, EVIL)
        for part in ("holders", "waiters"):
            await expect(looking.part(part).locator("b").first).to_have_text(EVIL)
        await expect(looking.part("slots").locator(".who").first).to_have_text(EVIL)
    await pool.release(await waiter)
    await expect(looking.rows("events").filter(has_text="in the queue")).to_contain_text(EVIL)
    assert await looking.page.locator("#pools script, #pools img").count() == 0


async def test_even_markup_made_by_mistake_could_not_run(looking: Looking) -> None:
    refused = await looking.page.evaluate("""() => {
        try { document.body.innerHTML = "<img src=x onerror=alert(1)>"; } catch (error) { return error.name }
    }""")
    assert refused == "TypeError"
    looking.forgive("TrustedHTML")


async def test_it_shows_where_a_holder_stands_and_an_open_stack_stays_open(looking: Looking, pool: StubPool) -> None:
    event = asyncio.Event()

    async def report() -> None:
        async with pool.connection(label="report"):
            await event.wait()

    task = asyncio.create_task(report())
    stack = looking.part("holders").locator("details.stack")
    await expect(stack.locator("summary")).to_contain_text("test_browser.py")
    await stack.locator("summary").click()
    await expect(stack.locator("li").first).to_contain_text("await event.wait()")
    before = await looking.part("holders").locator(".time").text_content()
    await expect(looking.part("holders").locator(".time")).not_to_have_text(before or "")
    await expect(stack.locator("li").first).to_be_visible()
    event.set()
    await task


async def test_events_of_a_kind_can_be_left_out(looking: Looking, pool: StubPool) -> None:
    async with pool.connection():
        pass
    created = looking.rows("events").filter(has_text="connection 1 opened")
    await expect(created).to_have_count(1)
    switch = looking.part("kinds").locator("button").filter(has_text="create")
    await switch.click()
    await expect(created).to_have_count(0)
    await expect(switch).to_have_attribute("aria-pressed", "false")
    await switch.click()
    await expect(created).to_have_count(1)


async def test_paused_it_asks_nothing_until_resumed(looking: Looking, pool: StubPool) -> None:
    await expect(looking.page.locator("#status")).to_have_text("live")
    await looking.page.click("#pause")
    await expect(looking.page.locator("#status")).to_have_text("paused")
    asked: list[str] = []
    looking.page.on("request", lambda request: asked.append(request.url))
    await asyncio.sleep(2.5)  # time for two looks, were there any
    assert asked == []
    await looking.page.click("#pause")
    await expect(looking.page.locator("#status")).to_have_text("live")
    assert asked


async def test_hidden_it_asks_nothing_until_seen_again(looking: Looking) -> None:
    await expect(looking.page.locator("#status")).to_have_text("live")
    hide = "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true }); "
    hide += "document.dispatchEvent(new Event('visibilitychange')) }"
    await looking.page.evaluate(hide, True)
    await looking.page.wait_for_load_state("networkidle")
    asked: list[str] = []
    looking.page.on("request", lambda request: asked.append(request.url))
    await asyncio.sleep(2.5)
    assert asked == []
    async with looking.page.expect_request("**/data.json"):
        await looking.page.evaluate(hide, False)


async def test_it_says_so_when_the_program_no_longer_answers_and_when_it_does_again(
    looking: Looking, pool: StubPool
) -> None:
    status = looking.page.locator("#status")
    await expect(status).to_have_text("live")
    await looking.page.route("**/data.json", lambda route: route.abort())
    await expect(status).to_contain_text("the program does not answer")
    await looking.page.unroute("**/data.json")
    await expect(status).to_have_text("live")
    await looking.page.route("**/data.json", lambda route: route.fulfill(status=403))
    await expect(status).to_contain_text("the program answers 403")
    await looking.page.unroute("**/data.json")
    await looking.page.route("**/data.json", lambda route: route.fulfill(status=200, body="<h1>Log in</h1>"))
    await expect(status).to_contain_text("the program answers with something else")
    looking.forgive("Failed to load resource")


async def test_several_pools_each_have_a_part_and_a_pool_that_is_gone_has_none(
    browser: Browser, driver: StubDriver
) -> None:
    app = DebugApp()
    try:
        async with pool_of(driver, name="a.db"), pool_of(driver, name="b.db"), served(app) as url:
            page = await browser.new_page()
            await page.goto(url)
            for name in ("a.db", "b.db"):
                await expect(page.locator("h2").filter(has_text=name)).to_have_count(1)
            await page.close()
    finally:
        app.detach()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_is_as_light_or_dark_as_the_browser_wants(looking: Looking, scheme: Any) -> None:
    await looking.page.emulate_media(color_scheme=scheme)
    ground = await looking.page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(ground.partition("(")[2].partition(",")[0])
    assert (red > 200) is (scheme == "light")


async def test_on_a_narrow_screen_nothing_is_cut_off(looking: Looking, pool: StubPool) -> None:
    await looking.page.set_viewport_size({"width": 390, "height": 800})
    async with pool.connection(label="GET /users/with/a/very/long/path/that/does/not/fit/into/a/telephone"):
        await expect(looking.rows("holders")).to_have_count(1)
        wide = await looking.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390
