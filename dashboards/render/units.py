"""Numbers, spelled as Grafana spells them: "12.5 ms", "80 %", "64.6 ops/s"."""

from __future__ import annotations

import math

__all__ = ["spell"]

_SECONDS = ((1e-6, 1e9, " ns"), (1e-3, 1e6, " µs"), (1.0, 1e3, " ms"), (60.0, 1.0, " s"), (3600.0, 1 / 60, " min"))
_SUFFIXES = {"short": "", "none": "", "ops": " ops/s", "cpm": " c/m", "percentunit": "%"}
_BYTES = ((1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (0, " B"))


def spell(value: float, unit: str, decimals: int | None = None) -> str:
    """The value with its unit; three digits unless `decimals` says how many after the point."""
    if math.isnan(value):
        return "no data"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if unit == "s":
        scale, suffix = _of_seconds(abs(value))
        return _digits(value * scale, decimals) + suffix
    if unit == "percentunit":
        return _digits(100 * value, decimals) + _SUFFIXES[unit]
    if unit == "decbytes":
        size, suffix = next((size or 1.0, suffix) for size, suffix in _BYTES if abs(value) >= size)
        return _digits(value / size, decimals) + suffix
    for size, letter in ((1e6, " M"), (1e3, " K")):
        if abs(value) >= size:
            return _digits(value / size, decimals) + letter + _SUFFIXES[unit]
    return _digits(value, decimals) + _SUFFIXES[unit]


def _of_seconds(value: float) -> tuple[float, str]:
    if value == 0:
        return 1.0, " s"
    return next(((scale, suffix) for below, scale, suffix in _SECONDS if value < below), (1 / 3600, " hour"))


def _digits(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
