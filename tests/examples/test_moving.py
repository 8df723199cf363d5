"""The application that moves from aiosqlite: both programs do the same, and the page shows what differs."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.documents import ROOT, text_of

MOVING = ROOT / "examples" / "moving"
PROGRAMS = ["before", "after"]

# Both are used in the same way, twice in a row: started, used, ended.
USE = """
import httpx, importlib, asyncio, sys
app = importlib.import_module(sys.argv[1]).app

async def use(found):
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="https://service.test") as http:
            assert (await http.post("/users", json={"name": "Ada"})).status_code == (409 if found else 201)
            assert (await http.post("/sessions", json={"name": "Eve"})).status_code == 404
            token = (await http.post("/sessions", json={"name": "Ada"})).json()["token"]
            assert (await http.post("/posts", json={"text": "x"}, headers={"token": "wrong"})).status_code == 401
            posts = (http.post("/posts", json={"text": "Hello"}, headers={"token": token}) for _ in range(20))
            assert {answer.status_code for answer in await asyncio.gather(*posts)} == {201}
            assert (await http.get("/users/1")).json() == {"id": 1, "name": "Ada", "posts": found + 20}
            assert len((await http.get("/users/1/posts")).json()) == found + 20
            assert (await http.get("/users/2")).status_code == 404

for found in (0, 20):
    asyncio.run(use(found))
print("used")
"""


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_program_works_and_leaves_nothing_open(program: str, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{MOVING}", "DATABASE": str(tmp_path / "app.db")}
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", USE, program]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "used\n", "")


def test_the_page_shows_what_really_differs() -> None:
    before, after = ((MOVING / f"{program}.py").read_text("utf-8").splitlines() for program in PROGRAMS)
    (shown,) = re.findall(r"^```diff\n(.*?)\n```$", text_of(Path("docs/moving.md")), re.DOTALL | re.MULTILINE)
    assert shown.splitlines() == list(difflib.unified_diff(before, after, "before.py", "after.py", n=1, lineterm=""))


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_program_is_of_an_ordinary_length(program: str) -> None:
    assert 60 <= len((MOVING / f"{program}.py").read_text("utf-8").splitlines()) <= 150
