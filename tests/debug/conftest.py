"""What tests of the page in a real Chromium share."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, async_playwright, expect
from starlette.applications import Starlette
from starlette.routing import Mount

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.debug import DebugApp

from ..support.serving import served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
DEADLINE = 30_000  # ms; only tells a hang from a slow machine

# One browser for all of them, which takes longer to start than a test to run; and so one loop.
IN_CHROMIUM = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"), reason="no Chromium on this machine: apt-get install chromium"
    ),
]
expect.set_options(timeout=DEADLINE)


@dataclass
class Looking:
    """The page in the browser, and everything that it had to complain of."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    forgiven: list[str] = field(default_factory=list)

    def listen(self) -> None:
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        self.page.on("request", self._heard)

    def _heard(self, request: Any) -> None:
        if not request.url.startswith(self.url):
            self.complaints.append(f"outside: {request.url}")

    def part(self, name: str) -> Locator:
        """A part of the page by its name there."""
        return self.page.locator(f"#pools [data-is={name}]")

    def rows(self, name: str) -> Locator:
        """The rows of one of its lists."""
        return self.page.locator(f"#pools [data-is={name}] > li")

    def forgive(self, text: str) -> None:
        """The test provokes what has this text in it, which may arrive after the test has seen its effect."""
        self.forgiven.append(text)

    def unforgiven(self) -> list[str]:
        return [each for each in self.complaints if not any(text in each for text in self.forgiven)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    assert CHROMIUM is not None, "CI must have Chromium: apt-get install chromium"
    async with async_playwright() as playwright:
        # Of a profile of its own, as every launch is.
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=DEADLINE)
        yield browser
        await browser.close()


@asynccontextmanager
async def looking_at(pool: SQLiteConnectionPool[Any], browser: Browser, stacks: bool = True) -> AsyncIterator[Looking]:
    """At the page of one pool, mounted in a program; at the end there must be nothing to complain of."""
    app = Starlette(routes=[Mount("/debug/pool", DebugApp(pool, stacks=stacks))])
    async with served(app) as url:
        page = await browser.new_page()
        page.set_default_timeout(DEADLINE)
        looking = Looking(page, url)
        looking.listen()
        await page.goto(f"{url}/debug/pool/")
        await page.evaluate("globalThis.sameDocument = true")
        yield looking
        await page.close()
        assert looking.unforgiven() == []
