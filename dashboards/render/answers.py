"""What a panel has to show: Prometheus' answers to its queries over a window of time, and how each is to look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .ask import Prometheus, Series
from .board import Json, expand
from .theme import PALETTE, colour

__all__ = ["Answer", "Look", "Window", "answers", "exemplars", "look", "overrides", "threshold_colour"]


@dataclass(frozen=True, slots=True)
class Window:
    """The time that is shown, in seconds since the epoch, its steps, and what the board's variables stand for."""

    start: float
    end: float
    step: float
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """One series of a panel: of which query, under which name, and its points."""

    ref: str
    name: str
    series: Series


@dataclass(frozen=True, slots=True)
class Look:
    """How a series is drawn."""

    colour: str
    unit: str
    dashed: bool
    fill: float
    stacked: bool
    connected: bool
    right: bool


def answers(panel: Json, prometheus: Prometheus, window: Window) -> Iterator[Answer]:
    """The answers to all queries of a panel, in their order, and within a query by name."""
    for target in panel["targets"]:
        expr = expand(target["expr"], window.values)
        if target["instant"]:
            found = prometheus.now(expr, window.end)
        else:
            found = prometheus.over_time(expr, window.start, window.end, window.step)
        named = [Answer(target["refId"], series.name(target["legendFormat"]), series) for series in found]
        yield from named if target["instant"] else sorted(named, key=lambda answer: answer.name)


def exemplars(panel: Json, prometheus: Prometheus, window: Window) -> list[tuple[float, float]]:
    """Time and value of the exemplars of a panel."""
    return [
        (at, value)
        for target in panel["targets"]
        if target.get("exemplar")
        for at, value, _ in prometheus.exemplars(expand(target["expr"], window.values), window.start, window.end)
    ]


def look(panel: Json, name: str, turn: int) -> Look:
    """How the series of this name is drawn, which is the `turn`-th of its panel."""
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults.get("custom") or {}
    own = overrides(panel, name)
    fixed = own.get("color") or defaults.get("color", {})
    stacking = own.get("custom.stacking") or custom.get("stacking") or {}
    return Look(
        colour(fixed["fixedColor"]) if "fixedColor" in fixed else PALETTE[turn % len(PALETTE)],
        own.get("unit", defaults["unit"]),
        "custom.lineStyle" in own,
        own.get("custom.fillOpacity", custom.get("fillOpacity", 0)) / 100,
        stacking.get("mode") == "normal",
        custom.get("spanNulls") is True,
        own.get("custom.axisPlacement") == "right",
    )


def threshold_colour(panel: Json, value: float) -> str:
    """The colour of the highest threshold that the value reaches."""
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    reached = [step for step in steps if step["value"] is None or value >= step["value"]]
    return colour(reached[-1]["color"])


def overrides(panel: Json, name: str) -> dict[str, Any]:
    """What is the own of the series of this name, by property."""
    return {
        changed["id"]: changed["value"]
        for override in panel["fieldConfig"]["overrides"]
        if override["matcher"] == {"id": "byName", "options": name}
        for changed in override["properties"]
    }
