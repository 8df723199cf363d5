"""The format `mixin`: jsonnet evaluates it to the pack, with what its user overrides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import _jsonnet
import pytest

from .conftest import Exported
from .shipped import DASHBOARDS, groups, promtool_accepts


@pytest.fixture(scope="module")
def folder(exported: Exported) -> Path:
    return exported("mixin")


def evaluated(folder: Path, config: str = "{}") -> dict[str, Any]:
    """What jsonnet makes of the mixin with this configuration."""
    fields = """{
        rules: m.prometheusRules,
        alerts: m.prometheusAlerts,
        boards: m.grafanaDashboards,
        folder: m.grafanaDashboardFolder,
    }"""
    snippet = f"local m = (import 'mixin.libsonnet') + {{ _config+:: {config} }}; {fields}"
    found: dict[str, Any] = json.loads(_jsonnet.evaluate_snippet("snippet", snippet, jpathdir=[str(folder)]))
    return found


def alerts(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in found["alerts"]["groups"] for rule in group["rules"]}


def test_it_is_the_pack(folder: Path) -> None:
    found = evaluated(folder)
    assert found["rules"] == {"groups": groups("rules.yml")}
    assert found["alerts"] == {"groups": groups("alerts.yml")}
    assert found["boards"] == {f"aiosqlitepool-{name}.json": json.loads(text) for name, text in DASHBOARDS.items()}
    assert found["folder"] == "SQLite"


def test_promtool_accepts_the_rules(folder: Path, tmp_path: Path) -> None:
    found = evaluated(folder)
    promtool_accepts(found["rules"], tmp_path)
    promtool_accepts(found["alerts"], tmp_path)


def test_fields_of_an_alert_are_overridden_by_its_name(folder: Path) -> None:
    changed = "AiosqlitepoolWaitSlow"
    found = alerts(
        evaluated(folder, f"{{ alerts+: {{ {changed}: {{ 'for': '30m', labels+: {{ severity: 'info' }} }} }} }}")
    )
    before = alerts(evaluated(folder))
    assert found[changed] == before[changed] | {"for": "30m", "labels": {"severity": "info"}}
    assert found | {changed: before[changed]} == before


def test_an_alert_that_is_null_is_removed(folder: Path) -> None:
    found = alerts(evaluated(folder, "{ alerts+: { AiosqlitepoolChurn: null } }"))
    assert alerts(evaluated(folder)).keys() - found.keys() == {"AiosqlitepoolChurn"}


def test_it_has_the_runbook_and_says_that_it_depends_on_nothing(folder: Path) -> None:
    assert (folder / "runbook.md").is_file()
    assert json.loads((folder / "jsonnetfile.json").read_text())["dependencies"] == []
