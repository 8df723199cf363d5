"""Panels that show the present: single numbers, bars of one scale, tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from . import theme
from .answers import Answer, look, overrides, threshold_colour
from .board import Json
from .canvas import Area, Canvas
from .units import spell

__all__ = ["bargauge", "stat", "table"]

_NORMAL, _SMALL = 13.5, 12.0


def stat(canvas: Canvas, area: Area, panel: Json, found: Sequence[Answer]) -> None:
    """One large number, and below it what it belongs to."""
    answer = found[0] if found else None
    value = math.nan if answer is None else answer.series.last
    defaults = panel["fieldConfig"]["defaults"]
    colour = threshold_colour(panel, value) if math.isfinite(value) else theme.FAINT
    middle = area.x + area.w / 2
    text = spell(value, defaults["unit"], defaults.get("decimals"))
    canvas.text(middle, area.y + area.h * 0.42, text, 34, colour, ha="center")
    name = "" if answer is None else canvas.fitting(answer.name, _NORMAL, area.w - 16)
    canvas.text(middle, area.y + area.h * 0.83, name, _NORMAL, theme.FAINT, ha="center")


def bargauge(canvas: Canvas, area: Area, panel: Json, found: Sequence[Answer]) -> None:
    """A bar for each number, the longest as long as there is room."""
    defaults = panel["fieldConfig"]["defaults"]
    most = max((answer.series.last for answer in found if math.isfinite(answer.series.last)), default=0.0)
    height = area.h / len(found)
    names = [canvas.fitting(answer.name, _NORMAL, area.w * 0.45) for answer in found]
    left = area.x + max(118.0, *(canvas.width_of(name, _NORMAL) + 14 for name in names))
    for row, (answer, name) in enumerate(zip(found, names, strict=True)):
        y, style = area.y + row * height, look(panel, answer.name, row)
        room = Area(left + 12, y + height * 0.2, area.x + area.w - left - 107, height * 0.6)
        canvas.text(left, y + height / 2, name, _NORMAL, theme.TEXT, ha="right")
        canvas.box(room, "#22252b", radius=2)
        canvas.box(_filled(room, answer.series.last, most), style.colour, radius=2)
        text = spell(answer.series.last, defaults["unit"], defaults.get("decimals"))
        canvas.text(area.x + area.w - 82, y + height / 2, text, 16, style.colour)


def table(canvas: Canvas, area: Area, panel: Json, found: Sequence[Answer]) -> None:
    """A row for each combination of labels, ordered by the first value."""
    (organize,) = [change["options"] for change in panel["transformations"] if change["id"] == "organize"]
    labels = [label for label in organize["indexByName"] if not label.startswith("Value #")]
    headings = [organize["renameByName"][name] for name in organize["indexByName"]]
    values = {(answer.ref, *(answer.series.labels[label] for label in labels)): answer for answer in found}
    refs = [target["refId"] for target in panel["targets"]]
    rows = sorted({key[1:] for key in values}, key=lambda row: -values[refs[0], *row].series.last)
    widths = _widths(canvas, area.w, headings, [headings[: len(labels)], *rows])
    height = min(30.0, area.h / (len(rows) + 1))
    for place, heading in enumerate(headings):
        x = area.x + sum(widths[:place]) + 10
        canvas.text(x, area.y + height / 2, heading, _SMALL, "#6e9fff")
    for number, row in enumerate(rows, start=1):
        y = area.y + number * height
        canvas.box(Area(area.x, y, area.w, 0.7), theme.BORDER)
        for place, label in enumerate(row):
            room = widths[place] - 14
            x = area.x + sum(widths[:place]) + 10
            canvas.text(x, y + height / 2, canvas.fitting(label, _NORMAL, room), _NORMAL)
        for place, ref in enumerate(refs, start=len(labels)):
            cell = Area(area.x + sum(widths[:place]), y, widths[place], height)
            if (ref, *row) in values:
                _cell(canvas, cell, panel, headings[place], values[ref, *row].series.last)


def _filled(room: Area, value: float, most: float) -> Area:
    """As much of a bar as the value is of the most; a little of it in any case."""
    share = min(1.0, value / most) if most and math.isfinite(value) else 0.0
    return Area(room.x, room.y, max(2.0, room.w * share), room.h)


def _widths(canvas: Canvas, width: float, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[float]:
    """As wide as what is in them, the columns of labels; of what is left, the bar takes most."""
    labels = [max(canvas.width_of(text, _NORMAL) for text in column) + 26 for column in zip(*rows, strict=True)]
    values = len(headings) - len(labels)
    left = width - sum(labels)
    return [*labels, left * 1.5 / (values + 0.5), *[left / (values + 0.5)] * (values - 1)]


def _cell(canvas: Canvas, area: Area, panel: Json, heading: str, value: float) -> None:
    own = overrides(panel, heading)
    text, middle = spell(value, own["unit"]), area.y + area.h / 2
    if own.get("custom.cellOptions", {}).get("type") != "gauge":
        canvas.text(area.x + 10, middle, text, _NORMAL)
        return
    colour = threshold_colour(panel, value)
    room = area.inset(10, 7, 66, 7)
    canvas.box(room, "#22252b")
    canvas.box(_filled(room, value, own["max"]), colour)
    canvas.text(room.x + room.w + 7, middle, text, _NORMAL, colour)
