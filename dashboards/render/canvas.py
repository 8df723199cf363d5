"""A sheet measured in pixels from its upper left corner, on top of matplotlib."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from . import theme

__all__ = ["SHADE", "Area", "Canvas"]

# Shades that differ by less are one.
SHADE = 4
_DPI = 100
# Behind what is plotted, whenever it was drawn.
_BEHIND = -1


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle on a canvas, in pixels."""

    x: float
    y: float
    w: float
    h: float

    def inset(self, left: float, top: float, right: float, bottom: float) -> Area:
        """What is left of it within these margins."""
        return Area(self.x + left, self.y + top, self.w - left - right, self.h - top - bottom)


class Canvas:
    """A sheet of so many pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._figure = Figure((width / _DPI, height / _DPI), _DPI, facecolor=theme.BACKGROUND)
        # A figure that no window manager knows; pyplot would keep it.
        self._canvas: Any = FigureCanvasAgg(self._figure)

    def axes(self, area: Area) -> Axes:
        """Room to plot in, without a frame."""
        x, y = area.x / self.width, 1 - (area.y + area.h) / self.height
        axes = self._figure.add_axes((x, y, area.w / self.width, area.h / self.height))
        axes.set_facecolor("none")
        for side in axes.spines.values():
            side.set_visible(False)
        return axes

    def text(self, x: float, y: float, text: str, size: float, colour: str = theme.TEXT, **how: Any) -> None:
        """Text of so many pixels, by default from `x` to the right, its middle at `y`."""
        place = x / self.width, 1 - y / self.height
        how = {"ha": "left", "va": "center"} | how
        self._figure.text(*place, text, fontsize=size * 72 / _DPI, color=colour, parse_math=False, **how)

    def box(self, area: Area, fill: str, edge: str | None = None, radius: float = 0) -> None:
        """A filled rectangle, its corners rounded by so many pixels."""
        place = (area.x / self.width, 1 - (area.y + area.h) / self.height)
        size = (area.w / self.width, area.h / self.height)
        shape: Any
        if radius:
            rounding = f"round,pad=0,rounding_size={radius / self.width}"
            shape = FancyBboxPatch(place, *size, rounding, mutation_aspect=self.width / self.height)
        else:
            shape = Rectangle(place, *size)
        shape.set(facecolor=fill, edgecolor=edge or "none", linewidth=0.8, zorder=_BEHIND)
        shape.set_transform(self._figure.transFigure)
        self._figure.add_artist(shape)

    def width_of(self, text: str, size: float) -> float:
        """How many pixels wide a text of this size is."""
        drawn = self._figure.text(0, 0, text, fontsize=size * 72 / _DPI, parse_math=False)
        width = drawn.get_window_extent(self._canvas.get_renderer()).width
        drawn.remove()
        return float(width)

    def fitting(self, text: str, size: float, width: float) -> str:
        """The text, or as much of its beginning as is at most so wide."""
        while len(text) > 1 and self.width_of(text, size) > width:
            text = text[:-2].rstrip() + "…"
        return text

    def save(self, path: Path) -> None:
        """Write it as PNG, of shades rounded so that it is a fifth smaller and looks the same."""
        self._canvas.draw()
        shades = np.asarray(self._canvas.buffer_rgba(), dtype=np.uint16)[:, :, :3]
        rounded = np.minimum((shades + SHADE // 2) // SHADE * SHADE, 255).astype(np.uint8)
        Image.fromarray(rounded).save(path, optimize=True)
