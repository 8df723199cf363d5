"""Fit the files of the SRE pack to a fleet: `export --keep-labels` and `--selector`.

Rules and boards aggregate by job, instance and pool, so that other labels make no difference. Where one job name is in
several clusters or namespaces, their labels must be kept. Files are changed as text, which keeps comments and layout.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Fleet", "labels", "selector"]

T = TypeVar("T")

_POOL = "db_client_connection_pool_name"
# Labels that rules and boards have already, and names of the boards' variables.
_TAKEN = frozenset({"job", "instance", "le", _POOL, "pool", "datasource", "tempo_datasource", "loki_datasource"})
_STRING = r'"(?:[^"\\\n]|\\.)*"'
_MATCHER = rf"(?!__)[a-zA-Z_]\w*\s*(?:=~|!~|!=|=)\s*{_STRING}"
_BRACES = rf"\{{(?:{_STRING}|[^\"}}])*\}}"
# A series as it is scraped, with its matchers; before it, what may contain the names of labels.
_SERIES = re.compile(
    rf"{_STRING}|\b(?:by|on|group_left|group_right) \([^)]*\)"
    rf"|(?P<name>(?<![\w:])(?:db_client|aiosqlitepool)_\w+(?![\w:]))(?P<matchers>{_BRACES})?|{_BRACES}"
)
_GROUPING = re.compile(rf"\b((?:by|on) \()(?=[^()]*\b(?:job|{_POOL})\b)")
_ALERT_LABELS = re.compile(r"^(\s*(?:- )?(?:group_by|equal): \[(?:alertname, )?)(?=job\b)", re.MULTILINE)
_EXPRESSION = re.compile(r"^( *)expr: (?:[|>]-?\n(?:\1 +.*\n|\n)+|.*\n)", re.MULTILINE)
_JOB_OF_LINK = re.compile(r"var-job=([^&\"\n]*)")


@dataclass(frozen=True, slots=True)
class Fleet:
    """The labels to keep beside `job`, and the matchers that each query of scraped series gets.

    Raises:
        ValueError: a label or the selector is invalid. The message names the argument and the value.
    """

    keep_labels: tuple[str, ...] = ()
    selector: str | None = None

    def __post_init__(self) -> None:
        for label in self.keep_labels:
            if not re.fullmatch(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*", label):
                raise ValueError(f"keep_labels must be names of Prometheus labels, not {label!r}")
            if label in _TAKEN:
                raise ValueError(f"keep_labels must not contain {label!r}: rules or boards have this name already")
        if len(set(self.keep_labels)) < len(self.keep_labels):
            raise ValueError(f"keep_labels must not contain a label twice: {', '.join(self.keep_labels)!r}")
        if self.selector is None:
            return
        if not re.fullmatch(rf"{_MATCHER}(?:\s*,\s*{_MATCHER})*", self.selector, re.ASCII):
            raise ValueError(f'selector must be matchers such as job="api", env!~"dev|test", not {self.selector!r}')
        if re.search(r": | #", self.selector):
            raise ValueError(f"selector must not contain ': ' or ' #', which end a value in YAML: {self.selector!r}")

    def applied(self, name: str, text: str) -> str:
        """Return the text of the file `name` of the pack for this fleet."""
        if not self.keep_labels and self.selector is None:
            return text
        if name.endswith(".json"):
            return self._board(text)
        return self._metrics_file(text) if name.endswith(".yml") else text

    def _metrics_file(self, text: str) -> str:
        matchers = [self.selector] if self.selector is not None else []
        text = _EXPRESSION.sub(lambda found: self._query(found[0], matchers), text)
        return self._link(_ALERT_LABELS.sub(lambda found: found[1] + self._listed(), text))

    def _board(self, text: str) -> str:
        board = json.loads(text)
        variables = board["templating"]["list"]
        job = next(place for place, each in enumerate(variables) if each["name"] == "job")
        variables[job:job] = [self._variable(variables[job], label) for label in self.keep_labels]
        for number, each in enumerate(variables):
            if each["type"] == "query":
                series, comma, label = each["query"].rpartition(", ")
                # A variable offers what those before it pick.
                kept = [f'{label}=~"${label}"' for label in self.keep_labels[: max(0, number - job)]]
                each["query"] = self._query(series, [*kept, *self._selected()]) + comma + label
        return json.dumps(self._changed(board), indent=2, ensure_ascii=False) + "\n"

    def _changed(self, value: Any, key: str = "") -> Any:
        """Return a part of a board, changed; `key` is its name."""
        if isinstance(value, dict):
            changed = {name: self._changed(each, name) for name, each in value.items()}
            return self._columns(changed) if key == "indexByName" else changed
        if isinstance(value, list):
            return [self._changed(each) for each in value]
        if key == "expr":
            firing = "".join(f'{label}=~"${label}|", ' for label in self.keep_labels)
            picked = [f'{label}=~"${label}"' for label in self.keep_labels]
            return self._query(value, [*picked, *self._selected()]).replace('job=~"$job|"', f'{firing}job=~"$job|"')
        if key == "url":
            return self._link(value)
        if key == "legendFormat" and re.search(rf"\{{\{{(instance|{_POOL})\}}\}}", value):
            return value + "".join(f" · {{{{{label}}}}}" for label in self.keep_labels)
        return value

    def _columns(self, places: dict[str, int]) -> dict[str, int]:
        """Return the places of a table's columns, with the kept labels first."""
        shifted = {column: place + len(self.keep_labels) for column, place in places.items()}
        return {**{label: place for place, label in enumerate(self.keep_labels)}, **shifted}

    def _variable(self, job: dict[str, Any], label: str) -> dict[str, Any]:
        return {
            **job,
            "name": label,
            "label": label.replace("_", " ").capitalize(),
            "query": job["query"].replace(", job)", f", {label})"),
        }

    def _query(self, query: str, matchers: Sequence[str]) -> str:
        """Return a query that keeps the labels, and asks for the scraped series that `matchers` pick."""
        query = _GROUPING.sub(lambda found: found[1] + self._listed(), query)
        if not matchers:
            return query
        more = ", ".join(matchers)

        def selected(found: re.Match[str]) -> str:
            if found["name"] is None:
                return found[0]
            before = found["matchers"]
            return f"{found['name']}{{{more}}}" if before is None else f"{found['name']}{before[:-1]}, {more}}}"

        return _SERIES.sub(selected, query)

    def _selected(self) -> list[str]:
        return [] if self.selector is None else [self.selector]

    def _listed(self) -> str:
        return "".join(f"{label}, " for label in self.keep_labels)

    def _link(self, text: str) -> str:
        """Return a text whose links to boards pass the kept labels on, where they pass a label of the same kind on."""

        def with_labels(found: re.Match[str]) -> str:
            of_label = re.search(r"\b(labels|fields)\.job\b", found[1])
            values = (found[1].replace(".job", f".{label}") if of_label else "" for label in self.keep_labels)
            pairs = zip(self.keep_labels, values, strict=True)
            return "".join(f"var-{label}={value}&" for label, value in pairs) + found[0]

        return _JOB_OF_LINK.sub(with_labels, text)


def labels(text: str) -> tuple[str, ...]:
    """Parse the value of `--keep-labels`. Raises `argparse.ArgumentTypeError`."""
    return _parsed(lambda: Fleet(keep_labels=tuple(label.strip() for label in text.split(","))).keep_labels)


def selector(text: str) -> str | None:
    """Parse the value of `--selector`: one or more matchers. Raises `argparse.ArgumentTypeError`."""
    return _parsed(lambda: Fleet(selector=text).selector)


def _parsed(parse: Callable[[], T]) -> T:
    try:
        return parse()
    except ValueError as error:
        # argparse names the argument itself.
        raise argparse.ArgumentTypeError(str(error).partition(" ")[2]) from None
