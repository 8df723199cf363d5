"""Every expression that rules and boards ask returns data from real pools, and exemplars lead to real traces."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import yaml

from ..support.debian import ask, has_number, queried, wait_for
from .conftest import ROOT, Stack

pytestmark = pytest.mark.timeout(300)
WITHIN = 120.0

RECORDED = sorted(
    {
        rule["record"]
        for group in yaml.safe_load((ROOT / "metrics" / "rules.yml").read_text())["groups"]
        for rule in group["rules"]
    }
)


def panel_queries() -> list[tuple[str, str]]:
    """Every PromQL expression of the boards, with the title of its panel."""
    found: list[tuple[str, str]] = []

    def walk(board: str, panels: list[dict[str, Any]]) -> None:
        for panel in panels:
            for target in panel.get("targets", ()):
                if target.get("expr") and "loki" not in str(target.get("datasource")):
                    found.append((f"{board}: {panel['title']}: {target.get('refId')}", target["expr"]))
            walk(board, panel.get("panels", []))

    for file in sorted((ROOT / "dashboards").glob("*.json")):
        walk(file.stem, json.loads(file.read_text())["panels"])
    return found


# As Grafana would fill them in, for everything that was scraped since the stack was started.
VARIABLES = {
    "$job": ".+",
    "$instance": ".+",
    "$pool": ".+",
    # As the step of a subquery; its points fall on multiples of it, of which there must be some by now.
    ":$__rate_interval]": ":5s]",
    "$__rate_interval": "10m",
    "$__range_s": "600",
    "$__range": "10m",
    "$__interval": "5s",
}


def filled(expression: str) -> str:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


@pytest.mark.parametrize("record", RECORDED)
def test_every_recording_rule_records(stack: Stack, record: str) -> None:
    wait_for(record, lambda: has_number(queried(stack.prometheus, record)), within=WITHIN)


@pytest.mark.parametrize(("panel", "expression"), panel_queries(), ids=[panel for panel, _ in panel_queries()])
def test_every_panel_shows_something(stack: Stack, panel: str, expression: str) -> None:
    wait_for(panel, lambda: has_number(queried(stack.prometheus, filled(expression))), within=WITHIN)


def test_the_labels_that_opentelemetry_adds_are_there_to_be_dropped(stack: Stack) -> None:
    scoped = "aiosqlitepool_acquires_total{otel_scope_name!=''}"
    wait_for(scoped, lambda: queried(stack.prometheus, scoped), within=WITHIN)
    rules = '{__name__=~"(instance|job)_pool:.+"}'
    recorded = wait_for(rules, lambda: queried(stack.prometheus, rules), within=WITHIN)
    assert {label for series in recorded for label in series["metric"] if label.startswith("otel_")} == set()


def test_no_rule_fails_to_evaluate(stack: Stack) -> None:
    def rules() -> list[dict[str, Any]]:
        groups = ask(f"{stack.prometheus}/api/v1/rules")["data"]["groups"]
        found = [rule for group in groups for rule in group["rules"]]
        return found if all(rule["health"] != "unknown" for rule in found) else []

    evaluated = wait_for("every rule is evaluated", rules, within=WITHIN)
    assert {rule["name"]: rule.get("lastError") for rule in evaluated if rule["health"] != "ok"} == {}


def test_an_exemplar_is_the_trace_of_a_request_that_waited(stack: Stack) -> None:
    began = time.time() - 600

    def traces() -> set[str]:
        found = ask(
            f"{stack.prometheus}/api/v1/query_exemplars",
            query='db_client_connection_wait_time_seconds_bucket{db_client_connection_pool_name=~"service.db/.+"}',
            start=began,
            end=time.time(),
        )
        return {exemplar["labels"]["trace_id"] for series in found["data"] for exemplar in series["exemplars"]}

    def arrived() -> set[str]:
        return {span.trace_id.hex() for span in tuple(stack.receiver.spans)} & traces()

    common = wait_for("an exemplar of a trace that arrived", arrived, within=WITHIN)
    requests = {span.name for span in tuple(stack.receiver.spans) if span.trace_id.hex() in common}
    assert any(name.startswith(("GET /", "POST /")) for name in requests)
