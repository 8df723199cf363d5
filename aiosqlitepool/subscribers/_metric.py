"""The type of a metric, without any library, and how its name is spelled in Prometheus. `_metrics` has all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from ._attributes import POOL, SYSTEM

__all__ = ["Metric", "Values", "label_name"]

Kind = Literal["counter", "level", "gauge", "time", "histogram"]
# The values of a metric's attributes, in their order; "" stands for an attribute that is absent.
Values = tuple[str, ...]


# Compared by identity: a metric is a key of dicts that events write to.
@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric. Values of `kind` "level" are summed over pools and processes; of "gauge", the maximum counts.

    A "time" is the Unix time of the last event of a kind: it stays when its process has ended.

    `attributes` distinguish its series beside the pool; `known` are the values of the first one that start at 0. Only
    OpenTelemetry has the attributes `extra`, whose values follow. Only pools of a `SQLiteDatabase` have a `database`
    metric. The derived fields are computed once: a scrape reads them hundreds of times.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    database: bool = False
    # In Prometheus: the unit ("" for an annotation such as {connection}), the family (a counter's samples have the
    # suffix `_total`), and the names of the labels.
    prometheus_unit: str = field(init=False)
    family: str = field(init=False)
    labels: tuple[str, ...] = field(init=False)
    # Attributes that all series of the metric have, by name. Another library may have metrics of the same conventions:
    # rules and boards pick those of this one by its `db.system.name`.
    fixed: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        unit, name = {"s": "seconds", "By": "bytes"}.get(self.unit, ""), label_name(self.name)
        object.__setattr__(self, "prometheus_unit", unit)
        object.__setattr__(self, "family", f"{name}_{unit}" if unit else name)
        fixed = {SYSTEM: "sqlite"} if self.name.startswith("db.") else {}
        object.__setattr__(self, "fixed", fixed)
        object.__setattr__(self, "labels", tuple(map(label_name, (POOL, *self.attributes, *fixed))))

    def first_values(self) -> tuple[Values, ...]:
        """Return the values of the series that start at 0, or Prometheus' `increase()` would miss the first event."""
        absent = ("",) * len(self.attributes)
        if self.known:
            return tuple((value, *absent[1:]) for value in self.known)
        # A counter of values that are not known has no series yet; a histogram begins with what has no such attribute.
        return () if self.attributes and self.kind == "counter" else (absent,)


def label_name(attribute: str) -> str:
    """Translate the name of an attribute as OpenTelemetry's translation to Prometheus does."""
    return re.sub(r"[^a-zA-Z0-9]+", "_", attribute)
