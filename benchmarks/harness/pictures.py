"""The latency distributions as SVG: for each contender, the time that a given share of its requests stayed below.

Drawn in greys and colours of middle brightness on nothing, so that a page may be light or dark.
"""

from __future__ import annotations

import re
from math import log10
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from ..inside.load import PERCENTS
from .catalogue import workloads
from .results import Results

__all__ = ["draw_all"]

_GREY = "#808080"
# Okabe and Ito's colours, which the colour-blind can tell apart; those too light or too dark for a page replaced.
_COLOURS = (
    *("#808080", "#56B4E9", "#E69F00", "#D55E00", "#CC79A7", "#9A7FD1", "#B09B2C"),
    *("#009E73", "#3DBE8F", "#0B7A5B"),  # this pool's: greens
)
_DASHED = ("plain_sqlite3", "floor")
_TICKS = (50, 90, 99, 99.9)
_STYLE: Any = {
    "svg.hashsalt": "aiosqlitepool",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _GREY,
    "axes.labelcolor": _GREY,
    "axes.edgecolor": _GREY,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
}


def draw_all(results: Results, folder: Path, titles: dict[str, str]) -> dict[str, list[str]]:
    """Draw each workload that has latencies in its first lane; returns their names, by workload."""
    drawn: dict[str, list[str]] = {}
    for name in workloads():
        lane = next((record.lane for record in results.records if record.workload == name), None)
        for case in filter(_is_drawn, results.cases(name) if lane else ()):
            assert lane is not None
            curves = {titles[each]: results.median_quantiles(lane, name, case, each) for each in titles}
            curves = {title: values for title, values in curves.items() if values}
            if curves:
                file = re.sub(r"\W+", "-", f"{name}-{case}").strip("-").lower() + ".svg"
                folder.mkdir(parents=True, exist_ok=True)
                _draw(f"{workloads()[name].title}: {case} ({lane})", curves, titles, folder / file)
                drawn.setdefault(name, []).append(f"{folder.name}/{file}")
    return drawn


def _is_drawn(case: str) -> bool:
    """One regime is enough to show a distribution's shape."""
    return not case.endswith("one core")


def _draw(title: str, curves: dict[str, list[float]], titles: dict[str, str], path: Path) -> None:
    names = {shown: name for name, shown in titles.items()}
    colours = dict(zip(titles.values(), _COLOURS * 3, strict=False))
    # The tail matters most: the axis gives each further nine the same room.
    across = [_nines(percent) for percent in PERCENTS]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 4.8), layout="constrained")
        axes = figure.add_subplot()
        for shown, values in curves.items():
            ours = names[shown] == "this_pool"
            style = "--" if names[shown] in _DASHED else "-"
            milliseconds = [1000 * value for value in values]
            axes.plot(across, milliseconds, style, color=colours[shown], linewidth=2.6 if ours else 1.4, label=shown)
        axes.set_yscale("log")
        axes.set_xlim(_nines(0), _nines(99.9))
        axes.set_xticks([_nines(percent) for percent in (0, *_TICKS)], ["", *(f"P{percent:g}" for percent in _TICKS)])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_ylabel("latency, ms")
        axes.set_title(title, loc="left", fontsize=11)
        axes.grid(visible=True, color=_GREY, alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right center", frameon=False, fontsize=9)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def _nines(percent: float) -> float:
    return -log10(1 - min(percent, 99.99) / 100)
