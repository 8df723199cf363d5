"""Names, labels and bounds: what Prometheus cannot know to be wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest

from aiosqlitepool.subscribers._metrics import METRICS

from .shipped import EXPRESSIONS, RECORDS

_JOB_POOL = {"job", "db_client_connection_pool_name"}
LEVELS = {"instance_pool": {"instance", *_JOB_POOL}, "job_pool": _JOB_POOL, "job": {"job"}}

each_expression = pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_live_scrape_has_every_metric(metric: Any, scrape: str) -> None:
    assert re.search(rf"^{metric.family}(_total|_count)?\{{", scrape, re.MULTILINE)


@each_expression
def test_it_asks_for_what_a_live_scrape_or_a_recording_rule_has(expression: str, scrape: str) -> None:
    recorded = {rule["record"] for rule in RECORDS}
    labels = {label for metric in METRICS for label in metric.labels}
    asked = set(re.findall(r"\w+:\w+:\w+|(?<!:)\b(?:db_client|aiosqlitepool)_\w+", expression)) - labels
    assert asked
    for name in asked:
        assert name in recorded or re.search(rf"^{name}\{{", scrape, re.MULTILINE), name


@each_expression
def test_it_says_what_it_aggregates_by(expression: str) -> None:
    aggregations = re.findall(r"(?<![:\w])(?:sum|max|min|avg|count|quantile|topk)\b\s*(\w*)", expression)
    assert set(aggregations) <= {"by"}
    # Whatever is scraped stands inside one: other labels than those of the level would multiply series.
    if not re.search(r"\w+:\w+:\w+", expression):
        assert aggregations


@each_expression
def test_the_bound_of_a_bucket_is_written_as_a_float(expression: str) -> None:
    # Of whole numbers, also as OTLP writes it.
    for bound in re.findall(r'\ble=~?"([^"]*)"', expression):
        assert bound == "+Inf" or re.fullmatch(r"\d+\.\d+|\d+\(\\\\.0\)\?", bound), bound
        assert not bound.endswith(".0")


@pytest.mark.parametrize("record", sorted({rule["record"] for rule in RECORDS}))
def test_a_recording_rule_is_called_level_metric_operation(record: str) -> None:
    level, metric, operation = record.split(":")
    assert level in LEVELS
    assert any(metric.startswith((each.family, each.family.rpartition("_")[0])) for each in METRICS)
    assert re.fullmatch(r"(\w+_)?(ratio|sum|max|min|count|rate|increase)(_rate)?(5m|30m|1h|2h|6h|1d)?", operation)


@pytest.mark.parametrize("rule", RECORDS, ids=lambda rule: rule["record"])
def test_a_recording_rule_keeps_the_labels_of_its_level(rule: dict[str, Any]) -> None:
    level = LEVELS[rule["record"].partition(":")[0]]
    by = [set(re.split(r",\s*", labels)) for labels in re.findall(r"\bby \(([^)]*)\)", rule["expr"])]
    assert by
    assert all(labels - {"le"} == level for labels in by)


@each_expression
def test_it_asks_only_for_series_of_this_library(expression: str) -> None:
    # Other libraries follow the same conventions.
    of_conventions = [metric.family for metric in METRICS if metric.name.startswith("db.")]
    for name in of_conventions:
        for found in re.finditer(rf"(?<![\w:]){name}(?:_total|_count|_sum|_bucket)?(?![\w:])", expression):
            assert expression[found.end() :].startswith('{db_system_name="sqlite"'), expression
