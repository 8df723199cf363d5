"""Grafana's dark theme: what colours are called, and which come in turn."""

from __future__ import annotations

__all__ = ["BACKGROUND", "BORDER", "FAINT", "GRID", "HEAT", "PALETTE", "PANEL", "TEXT", "colour"]

BACKGROUND = "#111217"
PANEL = "#181b1f"
BORDER = "#25282e"
TEXT = "#d5d6e0"
FAINT = "#9a9ca8"
GRID = "#2a2d33"

_NAMED = {
    "green": "#73bf69",
    "yellow": "#fade2a",
    "orange": "#ff9830",
    "red": "#f2495c",
    "dark-red": "#c4162a",
    "blue": "#5794f2",
    "purple": "#b877d9",
    "text": TEXT,
}
PALETTE = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a")
# From nothing to much, for heatmaps.
HEAT = (PANEL, "#4a2209", "#7f2704", "#a63603", "#d94801", "#f16913", "#fd8d3c", "#fdae6b", "#fdd0a2", "#fee6ce")


def colour(name: str) -> str:
    """The colour of this name in hexadecimal; `KeyError` if the theme has none."""
    return name if name.startswith("#") else _NAMED[name]
