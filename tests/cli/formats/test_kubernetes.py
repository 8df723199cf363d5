"""The formats `kubernetes` and `grafana-operator`: objects that their operators accept, with the pack in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from aiosqlitepool.cli.export import export

from .conftest import Exported
from .shipped import DASHBOARDS, METRICS, groups, promtool_accepts

SCHEMAS = json.loads((Path(__file__).parent / "schemas" / "kubernetes.json").read_text())["definitions"]
KINDS = {
    "dashboards.yaml": "ConfigMap",
    "podmonitor.yaml": "PodMonitor",
    "prometheusrules.yaml": "PrometheusRule",
    "servicemonitor.yaml": "ServiceMonitor",
}


def faults(thing: dict[str, Any]) -> list[str]:
    """What is wrong with an object, as one of its kind."""
    schema = {"$ref": f"#/definitions/{thing['kind']}", "definitions": SCHEMAS}
    return [
        f"{'/'.join(map(str, error.path))}: {error.message}" for error in Draft7Validator(schema).iter_errors(thing)
    ]


@pytest.fixture(scope="module")
def manifests(exported: Exported) -> dict[str, list[dict[str, Any]]]:
    """The objects in each file of the format `kubernetes`."""
    folder = exported("kubernetes")
    return {path.name: list(yaml.safe_load_all(path.read_text())) for path in folder.glob("*.yaml")}


@pytest.fixture(scope="module")
def grafana_dashboards(exported: Exported) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((exported("grafana-operator") / "grafanadashboards.yaml").read_text()))


def test_each_file_has_objects_of_one_kind(manifests: dict[str, list[dict[str, Any]]]) -> None:
    kinds = {name: {thing["kind"] for thing in things} for name, things in manifests.items()}
    assert kinds == {name: {kind} for name, kind in KINDS.items()} | {"kustomization.yaml": {"Kustomization"}}


@pytest.mark.parametrize("name", KINDS)
def test_the_definition_of_its_kind_accepts_each_object(name: str, manifests: dict[str, list[dict[str, Any]]]) -> None:
    assert [fault for thing in manifests[name] for fault in faults(thing)] == []


def test_the_grafana_operator_accepts_each_dashboard(grafana_dashboards: list[dict[str, Any]]) -> None:
    assert {thing["kind"] for thing in grafana_dashboards} == {"GrafanaDashboard"}
    assert [fault for thing in grafana_dashboards for fault in faults(thing)] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "PrometheusRule", "spec": {"groups": [{"name": "a", "rules": [{"record": "a"}]}]}},
        {"kind": "PodMonitor", "spec": {"selector": {}, "podMetricsEndpoint": []}},
        {"kind": "ServiceMonitor", "spec": {"selector": {}, "endpoints": [{"port": 8000}]}},
        {"kind": "GrafanaDashboard", "spec": {"json": "{}"}},
        {"kind": "ConfigMap", "data": {"a.json": {}}},
    ],
    ids=lambda wrong: wrong["kind"],
)
def test_the_schemas_find_what_is_wrong(wrong: dict[str, Any]) -> None:
    assert any(
        "required property" in fault or "not of type" in fault or "unexpected" in fault for fault in faults(wrong)
    )


def test_the_rules_are_those_of_the_pack(manifests: dict[str, list[dict[str, Any]]]) -> None:
    rules = {thing["metadata"]["name"]: thing["spec"]["groups"] for thing in manifests["prometheusrules.yaml"]}
    assert rules == {"aiosqlitepool-rules": groups("rules.yml"), "aiosqlitepool-alerts": groups("alerts.yml")}


def test_promtool_accepts_the_rules(manifests: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    for thing in manifests["prometheusrules.yaml"]:
        promtool_accepts(thing["spec"], tmp_path)


def test_the_comments_of_the_rules_stay(exported: Exported) -> None:
    written = (exported("kubernetes") / "prometheusrules.yaml").read_text()
    comments = [line.strip() for line in (METRICS / "alerts.yml").read_text().splitlines() if line.startswith("#")]
    assert comments
    assert all(f"\n  {comment}\n" in written for comment in comments if comment != "#")


def test_the_dashboards_are_those_of_the_pack(
    manifests: dict[str, list[dict[str, Any]]], grafana_dashboards: list[dict[str, Any]]
) -> None:
    in_config_maps = {name: text for thing in manifests["dashboards.yaml"] for name, text in thing["data"].items()}
    assert in_config_maps == {f"aiosqlitepool-{name}.json": text for name, text in DASHBOARDS.items()}
    in_objects = {thing["metadata"]["name"]: thing["spec"]["json"] for thing in grafana_dashboards}
    assert in_objects == {f"aiosqlitepool-{name}": text for name, text in DASHBOARDS.items()}


def test_a_dashboard_fits_into_the_annotation_that_kubectl_apply_makes(
    manifests: dict[str, list[dict[str, Any]]],
) -> None:
    for thing in manifests["dashboards.yaml"]:
        assert len(json.dumps(thing)) < 256 * 1024


def test_the_kustomization_applies_rules_dashboards_and_one_monitor(
    manifests: dict[str, list[dict[str, Any]]],
) -> None:
    (kustomization,) = manifests["kustomization.yaml"]
    assert set(kustomization["resources"]) == manifests.keys() - {"kustomization.yaml", "servicemonitor.yaml"}


def test_links_and_durations_are_those_that_the_caller_asked_for(tmp_path: Path) -> None:
    export(tmp_path, format="kubernetes", runbook_url="https://wiki.example/pool", time_scale=0.5)
    _, alerts = yaml.safe_load_all((tmp_path / "prometheusrules.yaml").read_text())
    by_name = {rule["alert"]: rule for group in alerts["spec"]["groups"] for rule in group["rules"]}
    saturated = by_name["AiosqlitepoolSaturated"]
    assert saturated["annotations"]["runbook_url"] == "https://wiki.example/pool#aiosqlitepoolsaturated"
    (shipped,) = [
        rule for group in groups("alerts.yml") for rule in group["rules"] if rule["alert"] == saturated["alert"]
    ]
    assert (shipped["for"], saturated["for"]) == ("1m", "30s")
