"""Panels that show change over time: curves and heatmaps."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, MultipleLocator

from . import theme
from .answers import Answer, Look, Window, look
from .board import Json
from .canvas import Area, Canvas
from .units import spell

__all__ = ["heatmap", "timeseries"]

_SMALL = 12.0
_LEFT = 74.0
_DOTS = 48
# Where seconds are better told as minutes, and steps that people count them in.
_MINUTES = 100.0
_ROUND_SECONDS = (5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400, 604800)
# Exemplars, by time and value.
Dots = Sequence[tuple[float, float]]
_HEAT = LinearSegmentedColormap.from_list("heat", theme.HEAT)


def timeseries(canvas: Canvas, area: Area, panel: Json, found: Sequence[Answer], dots: Dots, window: Window) -> None:
    """Curves with their legend below; `dots` are exemplars, at their time and value."""
    looks = {answer.name: look(panel, answer.name, turn) for turn, answer in enumerate(found)}
    height = _legend(canvas, area, looks)
    right = next((style for style in looks.values() if style.right), None)
    plot = canvas.axes(area.inset(_LEFT, 6, _LEFT if right else 10, height + 24))
    other = _beside(plot) if right else plot
    base = np.zeros(_steps(window))
    top = {plot: 0.0, other: 0.0}
    for answer in found:
        style = looks[answer.name]
        values = _on_grid(answer, window)
        floor = base if style.stacked else np.zeros_like(base)
        values, base = floor + values, base + np.nan_to_num(values) if style.stacked else base
        axes = other if style.right else plot
        _curve(axes, window, floor, values, style)
        top[axes] = max(top[axes], _highest(values))
    unit = panel["fieldConfig"]["defaults"]["unit"]
    _scale(plot, top[plot], unit)
    if right:
        _scale(other, top[other], right.unit)
    _thresholds(plot, panel)
    _dots(plot, dots, window)
    _clock(plot, window, area.w)


def heatmap(canvas: Canvas, area: Area, panel: Json, found: Sequence[Answer], window: Window) -> None:
    """Observations by bucket: the more, the brighter."""
    rows = sorted(found, key=lambda answer: float(answer.name))
    below = np.array([_on_grid(answer, window) for answer in rows])
    counts = np.diff(np.nan_to_num(below), axis=0, prepend=0.0)
    counts[counts < 1e-9] = np.nan
    plot = canvas.axes(area.inset(_LEFT, 6, 10, 24))
    edges = np.arange(len(rows) + 1)
    times = np.linspace(window.start, window.end, _steps(window) + 1)
    plot.pcolormesh(times, edges, counts, cmap=_HEAT, norm=PowerNorm(0.5, 0.0, _highest(counts) or 1.0), lw=0)
    ticks = list(range(1, len(rows), 2))
    plot.yaxis.set_major_locator(FixedLocator(ticks))
    plot.set_yticks(ticks, [spell(float(rows[tick - 1].name), "s") for tick in ticks])
    _style(plot)
    _clock(plot, window, area.w)


# -- curves


def _steps(window: Window) -> int:
    return math.floor((window.end - window.start) / window.step) + 1


def _on_grid(answer: Answer, window: Window) -> Any:
    """Its values at every step of the window, NaN where it has no number."""
    values = np.full(_steps(window), np.nan)
    for at, value in zip(answer.series.times, answer.series.values, strict=True):
        values[round((at - window.start) / window.step)] = value if math.isfinite(value) else math.nan
    return values


def _highest(values: Any) -> float:
    return float(np.nanmax(values, initial=0.0, where=np.isfinite(values)))


def _curve(axes: Axes, window: Window, floor: Any, values: Any, style: Look) -> None:
    times = np.linspace(window.start, window.start + (_steps(window) - 1) * window.step, _steps(window))
    if style.connected:
        there = np.isfinite(values)
        times, floor, values = times[there], floor[there], values[there]
    line = (0, (5, 4)) if style.dashed else "-"
    axes.plot(times, values, color=style.colour, lw=1.3, ls=line, zorder=3, solid_joinstyle="round")
    if style.fill:
        axes.fill_between(times, floor, values, color=style.colour, alpha=style.fill, lw=0)


def _thresholds(axes: Axes, panel: Json) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    if defaults["custom"]["thresholdsStyle"]["mode"] == "off":
        return
    for step in defaults["thresholds"]["steps"][1:]:
        if step["value"] <= axes.get_ylim()[1]:
            axes.axhline(step["value"], color=theme.colour(step["color"]), lw=1, ls=(0, (4, 5)), alpha=0.75, zorder=2)


def _dots(axes: Axes, dots: Dots, window: Window) -> None:
    # As Grafana does: of those that stand at about the same time, the highest.
    highest: dict[int, tuple[float, float]] = {}
    for at, value in dots:
        slot = math.floor((at - window.start) / (window.end - window.start) * _DOTS)
        highest[slot] = max(highest.get(slot, (at, value)), (at, value), key=lambda dot: dot[1])
    for at, value in highest.values():
        axes.plot(at, value, "D", ms=4.2, color="#6e9fff", mec=theme.PANEL, mew=0.5, zorder=4)


# -- axes


def _beside(plot: Axes) -> Axes:
    """Axes over the same time, whose numbers stand at the right."""
    other = plot.twinx()
    for side in other.spines.values():
        side.set_visible(False)
    return other


def _scale(axes: Axes, highest: float, unit: str) -> None:
    axes.set_ylim(0, highest * 1.08 or 1.0)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    if unit == "s" and highest > _MINUTES:
        axes.yaxis.set_major_locator(MultipleLocator(next(step for step in _ROUND_SECONDS if highest / step <= 4)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: spell(value, unit)))
    _style(axes)


def _style(axes: Axes) -> None:
    axes.tick_params(colors=theme.FAINT, labelsize=_SMALL * 0.72, length=0, pad=5)
    axes.grid(visible=True, color=theme.GRID, lw=0.7, zorder=0)
    axes.set_axisbelow(True)


def _clock(axes: Axes, window: Window, width: float) -> None:
    most = width / 85
    every = next(step for step in _ROUND_SECONDS if (window.end - window.start) / step <= most)
    first = math.ceil(window.start / every) * every
    axes.xaxis.set_major_locator(FixedLocator(np.arange(first, window.end, every).tolist()))
    shape = "%H:%M" if every >= 60 else "%H:%M:%S"
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: time.strftime(shape, time.gmtime(at))))
    axes.set_xlim(window.start, window.end)
    _style(axes)


def _legend(canvas: Canvas, area: Area, looks: dict[str, Look]) -> float:
    """Write it at the bottom of the area; returns how high it is."""
    rows: list[list[str]] = [[]]
    used = 0.0
    for name in looks:
        wide = canvas.width_of(name, _SMALL) + 36
        if rows[-1] and used + wide > area.w - 16:
            rows.append([])
            used = 0.0
        rows[-1].append(name)
        used += wide
    for number, row in enumerate(rows):
        x, y = area.x + 12, area.y + area.h - 8 - 17 * (len(rows) - 1 - number)
        for name in row:
            canvas.box(Area(x, y - 1.5, 14, 3), looks[name].colour)
            canvas.text(x + 19, y, name, _SMALL, theme.FAINT)
            x += canvas.width_of(name, _SMALL) + 36
    return 17.0 * len(rows)
