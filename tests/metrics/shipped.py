"""The shipped files, read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
METRICS_DIR = ROOT / "metrics"


def rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((METRICS_DIR / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS, RECORDS = rules("alerts.yml"), rules("rules.yml")
ALERT_NAMES = [rule["alert"] for rule in ALERTS]
EXPRESSIONS = {
    rule.get("alert") or f"{rule['record']} {rule.get('labels', '')}": rule["expr"] for rule in RECORDS + ALERTS
}
RUNBOOK = (METRICS_DIR / "runbook.md").read_text()
BOARDS = [json.loads(file.read_text()) for file in sorted((ROOT / "dashboards").glob("*.json"))]
