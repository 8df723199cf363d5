"""Prometheus, asked over HTTP."""

from __future__ import annotations

import json
import math
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Prometheus", "PrometheusError", "Series"]


class PrometheusError(Exception):
    """What Prometheus said of a query that it could not answer."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer: labels, and values at times in seconds."""

    labels: Mapping[str, str]
    times: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def last(self) -> float:
        """The last value that is a number; NaN if there is none."""
        return next((value for value in reversed(self.values) if not math.isnan(value)), math.nan)

    def name(self, legend: str) -> str:
        """What Grafana calls it: the legend, with labels for `{{label}}`."""
        return re.sub(r"{{\s*(\w+)\s*}}", lambda found: self.labels.get(found[1], ""), legend) or "value"


class Prometheus:
    """A server at this URL; times are seconds since the epoch, floats. Errors are `PrometheusError` or `OSError`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def now(self, expr: str, at: float) -> list[Series]:
        """The answer at one moment."""
        return [_series(found, [found["value"]]) for found in self._get("query", query=expr, time=at)["result"]]

    def over_time(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """The answers at all steps from `start` to `end`."""
        answer = self._get("query_range", query=expr, start=start, end=end, step=step)
        return [_series(found, found["values"]) for found in answer["result"]]

    def exemplars(self, expr: str, start: float, end: float) -> list[tuple[float, float, Mapping[str, str]]]:
        """The exemplars of the series in this query: time, value, labels."""
        found = self._get("query_exemplars", query=expr, start=start, end=end)
        return [
            (exemplar["timestamp"], float(exemplar["value"]), exemplar["labels"])
            for series in found
            for exemplar in series["exemplars"]
        ]

    def _get(self, what: str, **parameters: str | float) -> Any:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            with error:
                said = json.load(error).get("error", error.reason)
            raise PrometheusError(f"{said}, in {parameters['query']}") from None


def _series(found: Any, points: Iterable[tuple[float, str]]) -> Series:
    times, values = zip(*points, strict=True)
    return Series(found["metric"], times, tuple(map(float, values)))
