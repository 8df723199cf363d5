"""Alerts have what whoever they wake needs: a text, a heading in the runbook, a board, and tests of both answers."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from .shipped import ALERT_NAMES, ALERTS, BOARDS, METRICS_DIR, RUNBOOK

HEADINGS = re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)
SECTIONS = re.split(r"^## ", RUNBOOK, flags=re.MULTILINE)[1:]
# Alerts of all pools of a service at once.
OF_SERVICES = ("AiosqlitepoolTelemetryStopped",)
each_alert = pytest.mark.parametrize("alert", ALERTS, ids=ALERT_NAMES)


@each_alert
def test_an_alert_has_what_an_on_call_engineer_needs(alert: dict[str, Any]) -> None:
    assert alert["alert"].startswith("Aiosqlitepool")
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert "for" in alert
    assert not re.search(r"\d|\{\{", alert["annotations"]["summary"])
    of_pool = () if alert["alert"] in OF_SERVICES else ("$labels.db_client_connection_pool_name",)
    for told in ("$value", *of_pool, "$labels.job"):
        assert told in alert["annotations"]["description"]


@each_alert
def test_an_alert_links_to_its_heading_in_the_runbook(alert: dict[str, Any]) -> None:
    assert alert["annotations"]["runbook_url"] == f"runbook.md#{alert['alert'].lower()}"
    assert alert["alert"] in HEADINGS


def test_the_runbook_has_one_heading_for_each_alert() -> None:
    assert sorted(HEADINGS) == sorted(ALERT_NAMES)


@pytest.mark.parametrize("section", SECTIONS, ids=HEADINGS)
def test_the_runbook_says_what_it_means_where_to_look_why_and_what_to_do(section: str) -> None:
    for part in ("**Means:**", "**Look first:**", "**Likely causes:**", "**Do:**"):
        assert section.count(part) == 1
    first = section.partition("**Look first:**")[2].partition("**Likely causes:**")[0]
    assert re.search(r"\b(Overview|Pool),\s\*[^*]+\*", first)  # a board, and a panel of it


@each_alert
def test_an_alert_has_tests_of_firing_not_firing_foreign_labels_and_nothing(alert: dict[str, Any]) -> None:
    cases = [
        case
        for file in (METRICS_DIR / "tests").glob("*.yml")
        for case in yaml.safe_load(file.read_text())["tests"]
        if any(each["alertname"] == alert["alert"] for each in case.get("alert_rule_test", ()))
    ]
    fires = [case for case in cases if any(each["exp_alerts"] for each in case["alert_rule_test"])]
    quiet = [case for case in cases if not all(each["exp_alerts"] for each in case["alert_rule_test"])]
    assert any(not case["input_series"] for case in quiet)
    assert any(case["input_series"] for case in quiet)
    assert {True, False} == {"otel_scope_" in str(case["input_series"]) for case in fires}


@pytest.mark.parametrize("file", ["alertmanager.yml", "runbook.md"])
def test_every_alert_that_is_named_exists(file: str) -> None:
    named = set(re.findall(r"Aiosqlitepool\w+", (METRICS_DIR / file).read_text()))
    assert named
    assert named <= set(ALERT_NAMES)


# -- boards


def panel_titles(panels: list[dict[str, Any]]) -> set[str]:
    return {panel["title"] for panel in panels} | {
        title for panel in panels for title in panel_titles(panel.get("panels", []))
    }


@each_alert
def test_an_alert_links_to_a_board_with_variables_that_the_board_has(alert: dict[str, Any]) -> None:
    path, _, query = alert["annotations"]["dashboard_url"].partition("?")
    uid = path.removeprefix("/d/")
    assert uid in ("aiosqlitepool-overview", "aiosqlitepool-pool")
    variables = set(re.findall(r"var-(\w+)=", query))
    assert variables <= {"job", "instance", "pool"}
    labels = (
        {"job", "instance", "pool"} if "$labels.instance" in alert["annotations"]["description"] else {"job", "pool"}
    )
    assert variables == (labels - {"pool"} if alert["alert"] in OF_SERVICES else labels)
    for board in BOARDS:
        if board["uid"] == uid:
            assert variables <= {each["name"] for each in board["templating"]["list"]}


def test_the_runbook_names_panels_that_exist() -> None:
    if not BOARDS:
        pytest.skip("no boards in this checkout")
    titles = {title for board in BOARDS for title in panel_titles(board["panels"])}
    named = {re.sub(r"\s+", " ", name) for name in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", RUNBOOK)}
    assert named - titles == {"aiosqlitepool / Overview", "aiosqlitepool / Pool", "max"}
