"""The tab of statements in a real Chromium, and the statements of holders: over real connections of aiosqlite."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Route, expect

from aiosqlitepool import SQLiteConnectionPool

from ..support.stub import StubDriver
from ..support.worker import Gate
from .conftest import IN_CHROMIUM, Looking, looking_at

pytestmark = IN_CHROMIUM

Pool = SQLiteConnectionPool[aiosqlite.Connection]


@pytest_asyncio.fixture(loop_scope="module")
async def pool(database: Path) -> AsyncIterator[Pool]:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 2, name="app db/1") as pool:
        yield pool


@pytest_asyncio.fixture(loop_scope="module")
async def looking(browser: Browser, pool: Pool) -> AsyncIterator[Looking]:
    async with looking_at(pool, browser) as looking:
        yield looking


async def run(pool: Pool, *statements: str, label: str | None = None) -> None:
    async with pool.connection(label) as connection:
        for statement in statements:
            await connection.execute_fetchall(statement)


async def run_slowly(pool: Pool, statement: str) -> None:
    """As above; the statement calls gate(), and its total run time becomes the longest."""
    before = max((row.run_total for row in pool.statements()), default=0.0)
    async with pool.connection() as connection:
        with Gate() as gate:
            await gate.install(connection)
            task = asyncio.create_task(connection.execute_fetchall(statement))
            await gate.reached.wait()
            await asyncio.sleep(before + 0.01)
            gate.open()
            await task


async def open_tab(looking: Looking) -> Locator:
    """The rows of the table."""
    await looking.part("tab-statements").click()
    await expect(looking.part("panel-statements")).to_be_visible()
    return looking.page.locator("#pools [data-is=statements] > tbody")


def heading(looking: Looking, field: str) -> Locator:
    return looking.page.locator(f"#pools th[data-sort={field}]")


def asked_by(looking: Looking) -> list[str]:
    """The queries of what the page asks from now on."""
    asked: list[str] = []
    looking.page.on("request", lambda request: asked.append(request.url.partition("data.json")[2]))
    return asked


# -- the table


async def test_the_longest_total_run_time_comes_first(looking: Looking, pool: Pool) -> None:
    await run(pool, "SELECT 1", "SELECT 2", "SELECT text FROM note", label="GET /notes")
    await run_slowly(pool, "SELECT gate()")
    rows = await open_tab(looking)
    await expect(rows).to_have_count(3)
    await expect(rows.first).to_contain_text("SELECT gate()")
    twice = rows.filter(has=looking.page.locator("code", has_text="SELECT ?"))
    await expect(twice.locator("[data-is=calls]")).to_have_text("2")
    await expect(twice.locator("[data-is=rows]")).to_have_text("2")
    await expect(twice.locator("[data-is=operation]")).to_have_text("SELECT")
    await expect(twice.locator("[data-is=labels]")).to_have_text("GET /notes")
    await expect(looking.part("statements-about")).to_have_text("3 statements")
    await expect(looking.part("panel-now")).to_be_hidden()


async def test_shares_are_of_the_run_time_of_all(looking: Looking, pool: Pool) -> None:
    await run(pool, "SELECT 1", "SELECT text FROM note")
    rows = await open_tab(looking)
    await expect(rows).to_have_count(2)
    shares = [float(text.removesuffix(" %")) for text in await rows.locator("[data-is=share]").all_text_contents()]
    assert sum(shares) == pytest.approx(100, abs=1)
    assert shares == sorted(shares, reverse=True)


async def test_a_heading_sorts_and_again_turns_the_order_round(looking: Looking, pool: Pool) -> None:
    await run(pool, "SELECT 'b' AS b", *["SELECT 'a' AS a"] * 3, *["SELECT 'c' AS c"] * 2)
    rows = await open_tab(looking)
    await expect(rows).to_have_count(3)
    await expect(heading(looking, "run_total")).to_have_attribute("aria-sort", "descending")
    calls = heading(looking, "calls")
    await calls.locator("button").click()
    await expect(rows.locator("[data-is=calls]")).to_have_text(["3", "2", "1"])
    await expect(calls).to_have_attribute("aria-sort", "descending")
    await expect(heading(looking, "run_total")).not_to_have_attribute("aria-sort", "descending")
    await calls.locator("button").press("Enter")
    await expect(rows.locator("[data-is=calls]")).to_have_text(["1", "2", "3"])
    await expect(calls).to_have_attribute("aria-sort", "ascending")
    await heading(looking, "statement").locator("button").press("Space")
    await expect(rows.locator("code")).to_have_text(["SELECT ? AS a", "SELECT ? AS b", "SELECT ? AS c"])


async def test_every_heading_sorts_by_a_field_that_there_is(looking: Looking, pool: Pool) -> None:
    await run(pool, "SELECT 1")
    await open_tab(looking)
    fields = await looking.page.locator("#pools th[data-sort]").evaluate_all("all => all.map(th => th.dataset.sort)")
    (row,) = pool.statements()
    assert set(fields) == set(row.__slots__) - {"first_seen", "plan", "retried"}


async def test_an_error_is_marked(looking: Looking, pool: Pool) -> None:
    with pytest.raises(sqlite3.OperationalError):
        await run(pool, "SELECT missing")
    rows = await open_tab(looking)
    await expect(rows.locator("[data-is=errors].bad")).to_have_text("1")


async def test_a_long_statement_is_cut_until_it_is_opened(looking: Looking, pool: Pool) -> None:
    await run(pool, f"SELECT 1 AS {'x' * 1_500}, 'secret' /* {'y' * 1_000_000} */")
    rows = await open_tab(looking)
    text = rows.locator("code")
    await expect(text).to_have_text(f"SELECT ? AS {'x' * 1_500}, ?")
    cut = await text.evaluate("code => code.scrollWidth > code.clientWidth")
    low = await text.evaluate("code => code.getBoundingClientRect().height")
    await rows.locator("summary").first.press("Enter")
    assert cut
    assert await text.evaluate("code => code.getClientRects().length") > 3  # lines, and none is cut
    assert low < 30
    await run(pool, "SELECT 2")
    await expect(rows).to_have_count(2)
    await expect(rows.locator("details[open]")).to_have_count(1)  # an update leaves it open


async def test_at_first_a_hundred_are_listed(looking: Looking, pool: Pool) -> None:
    await run(pool, *(f"SELECT 1 AS a{number}" for number in range(620)))
    rows = await open_tab(looking)
    await expect(rows).to_have_count(100)
    kept = len(pool.statements())
    await expect(looking.part("statements-about")).to_have_text(
        f"{kept} statements; {620 - kept} more, the least used, were forgotten to make room"
    )
    await looking.part("all-statements").click()
    await expect(rows).to_have_count(kept)
    await expect(looking.part("all-statements")).to_be_hidden()


async def test_a_pool_that_ran_nothing_says_so(looking: Looking) -> None:
    rows = await open_tab(looking)
    await expect(looking.part("no-statements")).to_be_visible()
    await expect(rows).to_have_count(0)
    await expect(looking.part("some-statements")).to_be_hidden()


# -- what others have written


ODD = "\u202e\u2028é 表 🗂 \u200d"


async def test_a_statement_with_a_script_is_shown_and_does_nothing(looking: Looking, pool: Pool) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(1)</script>"
    await run(pool, f"SELECT 'secret' AS [{evil}]", f"SELECT 1 AS [{ODD}]", label=evil)
    rows = await open_tab(looking)
    await expect(rows).to_have_count(2)
    texts = await rows.locator("code").all_text_contents()
    assert sorted(texts) == sorted(row.statement for row in pool.statements())
    assert f"SELECT ? AS [{evil}]" in texts
    await expect(rows.locator("[data-is=labels]").first).to_have_text(evil)
    assert await looking.page.locator("#pools script, #pools img").count() == 0


async def test_values_do_not_reach_the_page(browser: Browser, pool: Pool) -> None:
    # Without stacks, which show the lines of this test.
    async with looking_at(pool, browser, stacks=False) as looking, pool.connection() as connection:
        await connection.execute("PRAGMA key = 'hush-1'")
        await connection.execute('PRAGMA key="hush-2"')
        await connection.execute("INSERT INTO note (text) VALUES ('hush-3'), (?)", ("hush-4",))
        rows = await open_tab(looking)
        await expect(rows).to_have_count(2)
        await looking.part("tab-now").click()
        await expect(looking.part("holders").locator("code")).to_have_text(["INSERT INTO note (text) VALUES (?), ..."])
        assert "hush" not in await looking.page.content()
        await connection.rollback()


# -- plans, which a statement has that was slow


@pytest_asyncio.fixture(loop_scope="module")
async def slow_pool(database: Path) -> AsyncIterator[Pool]:
    """A pool that takes every statement for slow."""
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, slow_statement=0) as pool:
        yield pool


SORTED = "SELECT text FROM note ORDER BY text"
WARNINGS = ["full scan of note", "temporary B-tree FOR ORDER BY"]


async def test_a_plan_can_be_opened_and_what_makes_it_slow_is_marked(browser: Browser, slow_pool: Pool) -> None:
    await run(slow_pool, SORTED, "SELECT text FROM note WHERE id = 1", "PRAGMA user_version")
    async with looking_at(slow_pool, browser) as looking:
        rows = await open_tab(looking)
        await expect(rows).to_have_count(3)
        await expect(rows.locator("details.plan:visible")).to_have_count(2)
        slow = rows.filter(has_text="ORDER BY")
        await expect(slow.locator("[data-is=warnings] > *")).to_have_text(WARNINGS)
        await expect(rows.filter(has_text="WHERE id").locator(".warning")).to_have_count(0)
        await expect(slow.locator("li")).to_have_count(0)
        await slow.locator(".plan summary").press("Enter")
        await expect(slow.locator("li [data-is=step]")).to_have_text(["SCAN note", "USE TEMP B-TREE FOR ORDER BY"])
        await expect(slow.locator("li .warning")).to_have_text(WARNINGS)
        # A step without a warning has no empty mark.
        await rows.filter(has_text="WHERE id").locator(".plan summary").click()
        await expect(rows.filter(has_text="WHERE id").locator("li")).to_have_count(1)
        await expect(rows.filter(has_text="WHERE id").locator("li .warning")).to_be_hidden()
        (plan,) = (row.plan for row in slow_pool.statements() if row.statement == SORTED)
        assert len(plan) == 2


async def test_a_plan_can_be_opened_while_the_page_is_paused(browser: Browser, slow_pool: Pool) -> None:
    await run(slow_pool, SORTED)
    async with looking_at(slow_pool, browser) as looking:
        rows = await open_tab(looking)
        await expect(rows).to_have_count(1)
        await looking.page.click("#pause")
        await rows.locator(".plan summary").click()
        await expect(rows.locator("li")).to_have_count(2)


async def test_a_plan_with_a_script_is_shown_and_does_nothing(browser: Browser, slow_pool: Pool) -> None:
    evil = "<img src=x onerror=alert(1)>"
    await run(slow_pool, f"CREATE TABLE [{evil}] (a)", f"SELECT * FROM [{evil}]")
    async with looking_at(slow_pool, browser) as looking:
        rows = await open_tab(looking)
        await expect(rows).to_have_count(2)
        plan = rows.locator("details.plan:visible")
        await plan.locator("summary").click()
        await expect(plan.locator("[data-is=step]")).to_have_text(f"SCAN {evil}")
        await expect(plan.locator("[data-is=warnings] > *")).to_have_text(f"full scan of {evil}")
        assert await looking.page.locator("#pools script, #pools img").count() == 0


async def test_a_slow_statement_is_an_event(browser: Browser, slow_pool: Pool) -> None:
    async with looking_at(slow_pool, browser) as looking:
        await run(slow_pool, SORTED, label="GET /notes")
        event = looking.rows("events").filter(has_text="statement slow")
        await expect(event).to_contain_text(f"GET /notes {SORTED} took ")
        await expect(event).to_contain_text(f"; {', '.join(WARNINGS)}")


# -- when it asks


async def test_statements_are_asked_for_only_while_they_are_shown(looking: Looking, pool: Pool) -> None:
    await run(pool, "SELECT 1")
    asked = asked_by(looking)
    # A request, which is among the asked; an answer could be that of one that began before.
    async with looking.page.expect_request("**/data.json") as sent:
        pass
    answer = await (await sent.value).response()
    assert answer is not None
    assert "statements" not in (await answer.json())["pools"][0]
    assert set(asked) == {""}
    rows = await open_tab(looking)
    await expect(rows).to_have_count(1)
    assert asked[-1] == "?statements=app+db%2F1"
    async with looking.page.expect_request("**/data.json"):
        await looking.part("tab-now").click()
    await expect(looking.part("panel-now")).to_be_visible()


async def test_a_paused_page_shows_the_statements_when_asked_and_sorts_them(looking: Looking, pool: Pool) -> None:
    await run(pool, "SELECT 1 AS a", "SELECT 1 AS b", "SELECT 1 AS b")
    await looking.page.click("#pause")
    await expect(looking.page.locator("#status")).to_have_text("paused")
    rows = await open_tab(looking)
    await expect(rows).to_have_count(2)
    await expect(looking.page.locator("#status")).to_have_text("paused")
    asked = asked_by(looking)
    await heading(looking, "calls").locator("button").click()
    await expect(rows.locator("[data-is=calls]")).to_have_text(["2", "1"])
    assert asked == []


async def test_a_tab_that_is_opened_while_an_answer_is_awaited_is_asked_for_at_once(
    looking: Looking, pool: Pool
) -> None:
    await run(pool, "SELECT 1")
    held, go = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        held.set()
        await go.wait()
        await route.continue_()

    await looking.page.route("**/data.json", hold)
    await held.wait()
    await looking.page.click("#pause")
    rows = await open_tab(looking)
    go.set()
    await expect(rows).to_have_count(1)
    await looking.page.unroute_all(behavior="wait")


# -- the keyboard, and narrow screens


async def test_arrows_lead_from_tab_to_tab(looking: Looking) -> None:
    now, statements = looking.part("tab-now"), looking.part("tab-statements")
    await now.press("ArrowRight")
    await expect(statements).to_be_focused()
    await expect(statements).to_have_attribute("aria-selected", "true")
    await expect(now).to_have_attribute("tabindex", "-1")
    await expect(looking.part("panel-statements")).to_be_visible()
    await statements.press("ArrowRight")
    await expect(now).to_be_focused()
    await expect(looking.part("panel-now")).to_be_visible()


async def test_a_statement_that_moves_up_keeps_the_focus(looking: Looking, pool: Pool) -> None:
    await run(pool, "SELECT 1 AS a", "SELECT 1 AS a", "SELECT 1 AS b")
    rows = await open_tab(looking)
    await heading(looking, "calls").locator("button").click()
    summary = rows.filter(has_text="AS b").locator(".sql summary")
    await expect(rows.last).to_contain_text("AS b")
    await summary.focus()
    await run(pool, "SELECT 1 AS b", "SELECT 1 AS b")
    await expect(rows.first).to_contain_text("AS b")
    await expect(summary).to_be_focused()


async def test_on_a_narrow_screen_only_the_table_scrolls(looking: Looking, pool: Pool) -> None:
    await looking.page.set_viewport_size({"width": 390, "height": 800})
    await run(pool, f"SELECT {', '.join(f'1 AS a{number}' for number in range(100))}", label="GET /" + "x" * 200)
    rows = await open_tab(looking)
    await expect(rows).to_have_count(1)
    assert await looking.page.evaluate("document.documentElement.scrollWidth") <= 390
    box = await rows.locator("summary").first.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 390


# -- holders


async def test_a_holder_says_what_it_runs_and_what_it_ran(looking: Looking, pool: Pool) -> None:
    with Gate() as gate:
        async with pool.connection(label="report") as connection:
            await gate.install(connection)
            task = asyncio.create_task(connection.execute_fetchall("SELECT gate() WHERE 'secret' = 'secret'"))
            await gate.reached.wait()
            row = looking.rows("holders")
            await expect(row.locator("[data-is=statement]")).to_have_text("SELECT gate() WHERE ? = ?")
            await expect(row.locator("[data-is=runs]")).to_contain_text("runs for")
            await expect(looking.part("tip").first).to_contain_text("SELECT gate() WHERE ? = ?")
            gate.open()
            await task
            await expect(row.locator("[data-is=runs]")).to_contain_text("ran for")


async def test_a_long_statement_is_short_in_a_tip(looking: Looking, pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute(f"SELECT 1 AS {'x' * 67}🗂🗂{'y' * 500}")
        await expect(looking.part("tip").first).to_contain_text(f"SELECT ? AS {'x' * 67}🗂…")


async def test_a_holder_that_ran_nothing_has_no_line_for_a_statement(browser: Browser, driver: StubDriver) -> None:
    pool: SQLiteConnectionPool[Any]
    async with SQLiteConnectionPool(driver, 1) as pool, looking_at(pool, browser) as looking:
        async with pool.connection():
            await expect(looking.rows("holders")).to_have_count(1)
            await expect(looking.part("sql")).to_be_hidden()
