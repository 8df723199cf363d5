"""A board as Grafana's components draw it, photographed in Chromium."""

from __future__ import annotations

import contextlib
import functools
import http.server
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import sync_playwright

from dashboards.render import theme
from dashboards.render.answers import Window, answers
from dashboards.render.ask import Prometheus
from dashboards.render.board import Json, panels, read
from dashboards.render.canvas import Area, Canvas
from dashboards.render.curves import heatmap

from .install import BUNDLES

PAGE = """\
<!doctype html>
<meta charset="utf-8">
<link rel="stylesheet" href="board.css">
<div id="root"></div>
<script src="board.js"></script>
"""
WIDTH = 1600
PATIENCE = 60_000


def draw(path: Path, prometheus: Prometheus, window: Window, pool: str | None, picture: Path) -> list[str]:
    """Write a picture of the board in the file `path`. Returns what could not be drawn."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        board = read(path)
        (folder / "index.html").write_text(PAGE)
        shutil.copy(path, folder / "board.json")
        for bundle in ("board.js", "board.css"):
            shutil.copy(BUNDLES / bundle, folder)
        for panel in panels(board):
            if panel["type"] == "heatmap":
                _plot(panel, prometheus, window, folder / f"{panel['id']}.png")
        with _served(folder) as address:
            return _photograph(f"{address}/?{_parameters(prometheus, window, pool)}", picture)


def _parameters(prometheus: Prometheus, window: Window, pool: str | None) -> str:
    seconds = {
        "from": window.start,
        "to": window.end,
        "step": window.step,
        "rate": window.values["__rate_interval"].removesuffix("s"),
    }
    return urlencode({"server": prometheus.url} | seconds | ({"pool": pool} if pool else {}))


def _plot(panel: Json, prometheus: Prometheus, window: Window, picture: Path) -> None:
    """Plot a heatmap: its component is in no package."""
    at = panel["gridPos"]
    canvas = Canvas(at["w"] * WIDTH // 24 - 24, at["h"] * 38 - 70)
    area = Area(0, 0, canvas.width, canvas.height)
    canvas.box(area, theme.PANEL, theme.PANEL)
    if found := list(answers(panel, prometheus, window)):
        heatmap(canvas, area, panel, found, window)
    canvas.save(picture)


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing of each request."""


def reduce(picture: Path) -> None:
    """Leave 256 colours to a picture, and less than half of its size."""
    with Image.open(picture) as image:
        # An octree keeps the colours of thin lines; a median cut gives them away for shades of the background.
        octree = {"method": Image.Quantize.FASTOCTREE, "dither": Image.Dither.NONE}
        image.convert("RGB").quantize(256, **octree).save(picture, optimize=True)


def _photograph(address: str, picture: Path) -> list[str]:
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        try:
            # So high that all is in sight: a table has no rows where nobody can see them.
            page = browser.new_page(viewport={"width": WIDTH, "height": 5000})
            failures: list[str] = []
            page.on("pageerror", lambda error: failures.append(str(error)))
            page.goto(address, timeout=PATIENCE)
            page.wait_for_function("window.drawn", timeout=PATIENCE)
            drawn = page.evaluate("window.drawn")
            page.locator("main").screenshot(path=picture)
            reduce(picture)
            return [*failures, *drawn["failures"]]
        finally:
            browser.close()
