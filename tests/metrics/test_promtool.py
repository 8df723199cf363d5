"""The shipped files as Prometheus and Alertmanager see them, told by their own tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiosqlitepool.cli.export import export

from ..support.debian import tool
from .shipped import METRICS_DIR

SHIPPED_TESTS = METRICS_DIR / "tests"
# Files without links. Those of tests over hours take seconds of both processors, and their alert has one file more.
WITHOUT_MORE_LINKS = {
    "rules.yml",
    "acquire_timeouts_burning_budget.yml",
    "acquire_timeouts_burning_budget_slowly.yml",
}


def test_prometheus_accepts_its_configuration() -> None:
    checked = tool("promtool", "check", "config", METRICS_DIR / "prometheus.yml")
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout
    assert "2 rule files found" in checked.stdout


@pytest.mark.parametrize("name", ["rules.yml", "alerts.yml"])
def test_prometheus_accepts_the_rules_and_its_linter_finds_nothing(name: str) -> None:
    checked = tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", METRICS_DIR / name)
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout


@pytest.mark.parametrize("test", sorted(path.name for path in SHIPPED_TESTS.glob("*.yml")))
def test_the_rules_pass_their_own_tests(test: str) -> None:
    ran = tool("promtool", "test", "rules", test, cwd=SHIPPED_TESTS)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped tests, exported with links that lead elsewhere."""
    folder = tmp_path_factory.mktemp("linked")
    export(folder, runbook_url="https://wiki.example/runbook", grafana_url="https://grafana.example")
    return folder / "metrics" / "tests"


def test_links_that_lead_elsewhere_are_in_the_tests_of_all_alerts(linked: Path) -> None:
    changed = {path.name for path in linked.iterdir() if path.read_text() != (SHIPPED_TESTS / path.name).read_text()}
    assert {path.name for path in SHIPPED_TESTS.iterdir()} - changed == {"rules.yml"}  # what has no links
    assert "https://grafana.example/d/" in (linked / "saturated.yml").read_text()


@pytest.mark.parametrize("test", sorted({path.name for path in SHIPPED_TESTS.glob("*.yml")} - WITHOUT_MORE_LINKS))
def test_the_rules_pass_their_tests_with_links_that_lead_elsewhere(linked: Path, test: str) -> None:
    ran = tool("promtool", "test", "rules", test, cwd=linked)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_alertmanager_accepts_its_route() -> None:
    checked = tool("amtool", "check-config", METRICS_DIR / "alertmanager.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("severity", "receiver"), [("critical", "on-call"), ("warning", "team"), ("info", "shown-only"), ("other", "team")]
)
def test_an_alert_goes_to_whom_its_severity_says(severity: str, receiver: str) -> None:
    config = f"--config.file={METRICS_DIR / 'alertmanager.yml'}"
    routed = tool("amtool", "config", "routes", "test", config, f"severity={severity}")
    assert routed.stdout.strip() == receiver


def test_they_are_as_valid_in_fast_motion(tmp_path: Path) -> None:
    export(tmp_path, time_scale=0.05, runbook_url="https://wiki.example/r", grafana_url="https://grafana.example")
    checked = tool("promtool", "check", "config", tmp_path / "metrics" / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    checked = tool("amtool", "check-config", tmp_path / "metrics" / "alertmanager.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_promtool_objects_to_one_metric_of_a_live_scrape_only(scrape: str) -> None:
    # OpenTelemetry's conventions say that the level is called so.
    checked = tool("promtool", "check", "metrics", stdin=scrape)
    complaint = 'db_client_connection_count non-histogram and non-summary metrics should not have "_count" suffix'
    assert (checked.stdout + checked.stderr).splitlines() == [complaint]
