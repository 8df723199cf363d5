"""A board as a page: its header, its rows and panels where its own grid has them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from . import theme
from .answers import Window, answers, exemplars
from .ask import Prometheus
from .board import Json
from .canvas import Area, Canvas
from .curves import heatmap, timeseries
from .numbers import bargauge, stat, table

__all__ = ["CAPTION", "render"]

CAPTION = "Plotted from a real Prometheus by dashboards/render: this board's own queries, not a screenshot of Grafana."

_WIDTH = 1360
# Pixels of a column and of a row of the grid, and between panels.
_COLUMN, _ROW, _GAP = _WIDTH / 24, 35, 8
_HEADER, _FOOTER = 92, 34


def render(board: Json, prometheus: Prometheus, window: Window, chosen: Mapping[str, str], path: Path) -> None:
    """Write a picture of the board to `path`, as PNG; `chosen` are the choices to show in its header."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    canvas = Canvas(_WIDTH, round(_HEADER + rows * _ROW + _FOOTER))
    _header(canvas, board, window, chosen)
    for panel in board["panels"]:
        at = panel["gridPos"]
        area = Area(at["x"] * _COLUMN, _HEADER + at["y"] * _ROW, at["w"] * _COLUMN, at["h"] * _ROW)
        if panel["type"] == "row":
            _row(canvas, area, panel)
        else:
            _panel(canvas, area.inset(_GAP / 2, _GAP / 2, _GAP / 2, _GAP / 2), panel, prometheus, window)
    canvas.text(_WIDTH / 2, canvas.height - _FOOTER / 2, CAPTION, 13, theme.FAINT, ha="center", style="italic")
    canvas.save(path)


def _header(canvas: Canvas, board: Json, window: Window, chosen: Mapping[str, str]) -> None:
    canvas.text(16, 26, board["title"], 21)
    times = [time.strftime("%H:%M:%S", time.gmtime(at)) for at in (window.start, window.end)]
    canvas.text(_WIDTH - 16, 26, f"{times[0]} to {times[1]} UTC", 13, theme.FAINT, ha="right")
    x = 12.0
    for variable in board["templating"]["list"]:
        label, value = variable["label"], chosen.get(variable["name"])
        if value is None:
            continue
        wide, room = canvas.width_of(label, 13) + 20, canvas.width_of(value, 13) + 20
        canvas.box(Area(x, 50, wide + room, 28), theme.PANEL, theme.BORDER, radius=3)
        canvas.text(x + 10, 64, label, 13, "#6e9fff")
        canvas.text(x + wide + 8, 64, value, 13)
        x += wide + room + 12


def _row(canvas: Canvas, area: Area, panel: Json) -> None:
    mark = "▸" if panel["collapsed"] else "▾"
    canvas.text(10, area.y + area.h / 2, f"{mark}  {panel['title']}", 15)


def _panel(canvas: Canvas, area: Area, panel: Json, prometheus: Prometheus, window: Window) -> None:
    canvas.box(area, theme.PANEL, theme.BORDER, radius=4)
    title = canvas.fitting(panel["title"], 15, area.w - 20)
    canvas.text(area.x + 10, area.y + 17, title, 15)
    content = area.inset(0, 32, 0, 6)
    if panel["datasource"]["type"] != "prometheus":
        note = f"asks {panel['datasource']['type'].title()}, which is not plotted here"
        canvas.text(area.x + area.w / 2, area.y + area.h / 2, note, 14, theme.FAINT, ha="center", style="italic")
        return
    found = list(answers(panel, prometheus, window))
    if not found:
        nothing = panel["fieldConfig"]["defaults"].get("noValue", "no data")
        canvas.text(area.x + area.w / 2, area.y + area.h / 2, nothing, 15, theme.FAINT, ha="center")
    elif panel["type"] == "timeseries":
        timeseries(canvas, content, panel, found, exemplars(panel, prometheus, window), window)
    elif panel["type"] == "heatmap":
        heatmap(canvas, content, panel, found, window)
    else:
        {"stat": stat, "bargauge": bargauge, "table": table}[panel["type"]](canvas, content, panel, found)
