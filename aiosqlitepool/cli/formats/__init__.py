"""The formats in which `export` writes the SRE pack.

Each format is a function from the files of the pack to the files to write, both as texts by relative path. Rules and
dashboards are moved as text: comments and layout stay, and no YAML library is needed.
"""

from __future__ import annotations

from collections.abc import Callable

from ._pack import Files, shipped
from .kubernetes import grafana_operator, kubernetes
from .mixin import mixin
from .terraform import terraform

__all__ = ["DEFAULT", "FORMATS", "Files"]


def _prometheus(pack: Files) -> Files:
    return pack


def _collector(pack: Files) -> Files:
    return shipped("collector.yaml")


DEFAULT = "prometheus"

FORMATS: dict[str, Callable[[Files], Files]] = {
    "prometheus": _prometheus,
    "kubernetes": kubernetes,
    "grafana-operator": grafana_operator,
    "mixin": mixin,
    "terraform": terraform,
    "collector": _collector,
}
