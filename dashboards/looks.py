"""What things look like on all boards: the colours that names have, thresholds, and what stands out from its panel."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

# What a name means has one colour on all boards; names that are not here take Grafana's palette in turn.
COLOURS = {
    "idle": "green",
    "used": "blue",
    "waiting": "orange",
    "max": "text",
    "min_size": "purple",
    "P50": "green",
    "P90": "yellow",
    "P99": "red",
    "new": "yellow",
    "queued": "orange",
    "oldest": "purple",
    "demand": "blue",
    "asked for": "orange",
    "demand at P99": "yellow",
    "creates": "blue",
    "created": "green",
    # why an acquire failed
    "timeout": "red",
    "rejected": "orange",
    "cancelled": "yellow",
    "closed": "purple",
    # why a connection was closed
    "lifetime": "blue",
    "unhealthy": "orange",
    "reset_failed": "red",
    "broken": "dark-red",
    "pool_closed": "purple",
    # what came back undone
    "transaction": "red",
    "in_flight": "orange",
    "cursor": "yellow",
    # how a transaction ended
    "committed": "green",
    "rolled_back": "orange",
    "failed": "red",
    # what was in its way
    "busy": "orange",
    "snapshot": "purple",
    # how far a checkpoint went
    "complete": "green",
    "partial": "orange",
}
# Drawn dashed, and never stacked on anything: what is compared with, not what happens.
LIMITS = ("max", "min_size")
_LIMIT = {
    "custom.lineStyle": {"fill": "dash", "dash": [8, 8]},
    "custom.fillOpacity": 0,
    "custom.stacking": {"mode": "none", "group": "A"},
}
# A number in a table as a bar.
BAR = {"custom.cellOptions": {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}}


def thresholds(warn: float | None = None, bad: float | None = None) -> dashboard.ThresholdsConfig:
    """Green, orange from `warn` and red from `bad` on."""
    marks = [(None, "green"), *((at, colour) for at, colour in ((warn, "orange"), (bad, "red")) if at is not None)]
    steps = [models.Threshold(value=at, color=colour) for at, colour in marks]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def coloured(name: str) -> dict[str, Any]:
    """The property that gives a series of this name its colour; none if the name has none."""
    return {"color": {"mode": "fixed", "fixedColor": COLOURS[name]}} if name in COLOURS else {}


def drawn(name: str, right_unit: str | None) -> dict[str, Any]:
    """The properties of the curve of this name; with a `right_unit`, its axis stands at the right."""
    # Thresholds are those of the left axis.
    right = {"unit": right_unit, "custom.axisPlacement": "right", "custom.thresholdsStyle": {"mode": "off"}}
    return coloured(name) | (_LIMIT if name in LIMITS else {}) | (right if right_unit is not None else {})


def properties(looks: dict[str, Any]) -> list[models.DynamicConfigValue]:
    """The looks as Grafana's overrides have them."""
    return [models.DynamicConfigValue(what, how) for what, how in looks.items()]
