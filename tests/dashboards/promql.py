"""What a PromQL expression picks and what it does with it, by way of a real parser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser
import pytest

from dashboards.render.board import Query, board_files, expand, queries, read, variables

__all__ = ["RANGE", "RATE_INTERVAL", "Selector", "every_query", "parsed", "selectors"]

# Lengths of time that nobody would write, so that it can be told where each variable stood.
RATE_INTERVAL, INTERVAL, RANGE = 7919, 7907, 7901
_CHOICES = {"job": "$job", "instance": "$instance", "pool": "$pool"}


@dataclass(frozen=True, slots=True)
class Selector:
    """One selector: its metric, its matchers by label, the function right around it, and the groupings above it."""

    name: str
    matchers: dict[str, tuple[Any, str]]
    function: str | None
    seconds: float | None
    groupings: tuple[tuple[str, ...] | None, ...]


def parsed(expr: str) -> Any:
    """The expression as a tree; `ValueError` if it is none."""
    values = variables(rate_interval=RATE_INTERVAL, interval=INTERVAL, span=RANGE, **_CHOICES)
    return promql_parser.parse(expand(expr, values))


def selectors(expr: str) -> list[Selector]:
    """Every selector of the expression."""
    found: list[Selector] = []
    above: list[Any] = []

    def enter(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(_selector(node, above))
        above.append(node)

    promql_parser.walk(parsed(expr), enter, lambda _: above.pop() and None)
    return found


def _selector(node: Any, above: list[Any]) -> Selector:
    matrix = next((parent for parent in above[-1:] if isinstance(parent, promql_parser.MatrixSelector)), None)
    calls = [parent for parent in above[-2:] if isinstance(parent, promql_parser.Call)] if matrix else []
    return Selector(
        node.name,
        {matcher.name: (matcher.op, matcher.value) for matcher in node.matchers.matchers},
        calls[-1].func.name if calls else None,
        matrix.range.total_seconds() if matrix else None,
        tuple(_grouping(parent) for parent in above if isinstance(parent, promql_parser.AggregateExpr)),
    )


def _grouping(aggregate: Any) -> tuple[str, ...] | None:
    modifier = aggregate.modifier
    if modifier is None or modifier.type != promql_parser.AggModifierType.By:
        return None
    return tuple(modifier.labels)


def every_query() -> Callable[[Any], Any]:
    """A parametrization by every query of every board."""
    found: Iterator[tuple[str, Query]] = ((path.stem, query) for path in board_files() for query in queries(read(path)))
    return pytest.mark.parametrize(
        "query", [pytest.param(query, id=f"{board}: {query.panel} {query.ref}") for board, query in found]
    )
