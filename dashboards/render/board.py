"""What is on a board, read from its JSON: panels, their queries, and the variables in them; knows no server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Json", "Query", "board_files", "expand", "panels", "queries", "read", "variables"]

Json = dict[str, Any]

_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)(?::\w+)?\}")


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel: its PromQL, with Grafana's variables in it, and what its answers are called."""

    panel: str
    ref: str
    expr: str
    legend: str
    instant: bool


def board_files() -> list[Path]:
    """The files of all boards."""
    return sorted(Path(__file__).parents[1].glob("*.json"))


def read(path: Path) -> Json:
    """A board as Grafana would read it."""
    board: Json = json.loads(path.read_text(encoding="utf-8"))
    return board


def panels(board: Json) -> Iterator[Json]:
    """Every panel, those in collapsed rows among them; rows are none."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def queries(board: Json, *, source: str = "prometheus") -> Iterator[Query]:
    """Every query that goes to this kind of data source."""
    for panel in panels(board):
        for target in panel["targets"]:
            if target["datasource"]["type"] == source:
                expr = target.get("expr") or target["query"]
                legend, instant = target.get("legendFormat", ""), bool(target.get("instant"))
                yield Query(panel["title"], target["refId"], expr, legend, instant)


def variables(*, rate_interval: int, interval: int, span: int, **chosen: str) -> dict[str, str]:
    """What Grafana puts for its variables, times in whole seconds; what was not chosen is all."""
    times = {"__rate_interval": rate_interval, "__interval": interval, "__range": span}
    everything = dict.fromkeys(("job", "instance", "pool"), ".+")
    return everything | chosen | {name: f"{seconds}s" for name, seconds in times.items()} | {"__range_s": str(span)}


def expand(text: str, values: Mapping[str, str]) -> str:
    """The text with values for its variables; `KeyError` if one has none."""
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], text)
