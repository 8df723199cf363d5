"""The rules in a fleet, told by promtool: troubles that were once missed, one job name in several namespaces."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from aiosqlitepool.cli.export import export

from ..support.debian import tool

CASES = Path(__file__).parent / "cases"
EVERYTHING: dict[str, Any] = {"keep_labels": ("cluster", "namespace"), "selector": 'job="api", env!~"dev|test"'}


def promtool_test(case: Path, folder: Path) -> tuple[int, str]:
    shutil.copy(case, folder)
    ran = tool("promtool", "test", "rules", case.name, cwd=folder)
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.parametrize("options", [{}, {"keep_labels": ["cluster", "namespace"]}], ids=["as shipped", "kept labels"])
@pytest.mark.parametrize("case", ["slow.yml", "otlp.yml"])
def test_what_is_slow_or_rare_or_in_one_process_is_caught(case: str, options: dict[str, Any], tmp_path: Path) -> None:
    export(tmp_path, **options)
    assert promtool_test(CASES / case, tmp_path)[0] == 0


def test_services_of_one_job_in_two_namespaces_are_told_from_each_other_by_the_kept_label(tmp_path: Path) -> None:
    export(tmp_path, keep_labels=["namespace"])
    ended, output = promtool_test(CASES / "namespaces.yml", tmp_path)
    assert ended == 0, output


def test_services_of_one_job_in_two_namespaces_are_one_service_without_it(tmp_path: Path) -> None:
    export(tmp_path)
    assert promtool_test(CASES / "namespaces.yml", tmp_path)[0] == 1


def test_rules_and_alerts_are_of_the_selected_series_only(tmp_path: Path) -> None:
    export(tmp_path, keep_labels=["env"], selector='job="api", env!~"dev|test"')
    ended, output = promtool_test(CASES / "selector.yml", tmp_path)
    assert ended == 0, output


# Of one pool in one process, of a service, of databases, and a match of several series.
@pytest.mark.parametrize("test", ["saturated", "work_lost", "reader_pins_wal", "slow_statements", "telemetry_stopped"])
def test_the_rules_pass_their_own_tests_also_with_labels_that_no_series_has(test: str, tmp_path: Path) -> None:
    export(tmp_path, keep_labels=["cluster", "namespace"])
    ran = tool("promtool", "test", "rules", f"{test}.yml", cwd=tmp_path / "metrics" / "tests")
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("options", [EVERYTHING, {**EVERYTHING, "time_scale": 0.05}], ids=["real time", "fast"])
def test_prometheus_and_alertmanager_accept_what_is_exported_for_a_fleet(
    options: dict[str, Any], tmp_path: Path
) -> None:
    export(tmp_path, **options)
    for command in (
        ("promtool", "check", "config", "prometheus.yml"),
        ("promtool", "check", "rules", "--lint=all", "--lint-fatal", "rules.yml", "alerts.yml"),
        ("amtool", "check-config", "alertmanager.yml"),
    ):
        checked = tool(*command, cwd=tmp_path / "metrics")
        assert checked.returncode == 0, checked.stdout + checked.stderr
