"""What Grafana is provisioned with fits the boards, and what Prometheus and the spans really have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from aiosqlitepool.subscribers import _attributes
from aiosqlitepool.subscribers import _metrics as _semconv
from dashboards.render.board import board_files, read

PROVISIONING = Path(__file__).parents[2] / "dashboards" / "provisioning"
SOURCES: dict[str, Any] = {
    source["uid"]: source for source in yaml.safe_load((PROVISIONING / "datasources.yml").read_text())["datasources"]
}


def test_there_is_a_source_for_metrics_for_traces_for_logs_and_for_alerts() -> None:
    assert {uid: source["type"] for uid, source in SOURCES.items()} == {
        "prometheus": "prometheus",
        "tempo": "tempo",
        "loki": "loki",
        "alertmanager": "alertmanager",
    }


def test_prometheus_is_what_the_boards_take_if_nobody_chooses() -> None:
    assert [uid for uid, source in SOURCES.items() if source.get("isDefault")] == ["prometheus"]
    for board in map(read, board_files()):
        assert board["templating"]["list"][0]["query"] == SOURCES["prometheus"]["type"]


def uids(thing: Any) -> set[str]:
    """Every data source that something names."""
    if isinstance(thing, list):
        return set().union(*map(uids, thing)) if thing else set()
    if not isinstance(thing, dict):
        return set()
    named = {value for key, value in thing.items() if key in ("datasourceUid", "alertmanagerUid")}
    return named.union(*map(uids, thing.values()))


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_source_that_another_leads_to_is_there(source: dict[str, Any]) -> None:
    assert uids(source["jsonData"]) <= set(SOURCES)


def test_exemplars_lead_to_traces_by_the_label_that_they_have() -> None:
    (destination,) = SOURCES["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert (destination["name"], destination["datasourceUid"]) == ("trace_id", "tempo")


def test_log_records_lead_to_traces_by_the_key_that_they_have() -> None:
    (field,) = SOURCES["loki"]["jsonData"]["derivedFields"]
    record = json.dumps({"event": "pool.acquire.slow", "trace_id": "0af7651916cd43dd8448eb211c80319c"})
    found = re.search(field["matcherRegex"], record)
    assert found is not None
    assert (found[1], field["datasourceUid"]) == ("0af7651916cd43dd8448eb211c80319c", "tempo")


def test_spans_lead_to_metrics_by_an_attribute_and_a_label_that_there_are() -> None:
    (tag,) = SOURCES["tempo"]["jsonData"]["tracesToMetrics"]["tags"]
    assert tag == {"key": _attributes.POOL, "value": _semconv.label_name(_attributes.POOL)}


def test_the_queries_of_spans_are_promql_of_the_catalogue() -> None:
    families = {metric.family for metric in _semconv.METRICS}
    for query in SOURCES["tempo"]["jsonData"]["tracesToMetrics"]["queries"]:
        # Grafana reads two dollars as one.
        assert "$$__tags" in query["query"]
        promql_parser.parse(query["query"].replace("$$__tags", 'pool="app.db"'))
        (name,) = re.findall(r"\w+(?=\{)", query["query"])
        assert name.removesuffix("_bucket") in families


def test_the_boards_are_read_from_files_and_not_edited() -> None:
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False


def test_every_json_file_beside_the_boards_is_a_board() -> None:
    """Grafana takes each for one, in folders below too."""
    assert {path.name for path in PROVISIONING.parent.rglob("*.json")} == {"overview.json", "pool.json"}
