"""Each alert, fired for real by what it describes, tells the pager, and ends when the trouble does."""

from __future__ import annotations

import pytest
import yaml

from ..support.debian import wait_for
from .conftest import ROOT, SILENCED, Stack
from .troubles import TROUBLES

# Everything goes wrong at the same time, and each trouble ends as soon as its alert is told: the longest, a leak, needs
# a minute until it is one. The deadlines tell what never comes from what comes late.
pytestmark = pytest.mark.timeout(600)
WITHIN = 300.0

ALERTS = [
    rule["alert"]
    for group in yaml.safe_load((ROOT / "metrics" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]


def test_there_is_a_trouble_for_every_alert() -> None:
    assert sorted(TROUBLES) == sorted(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_it_fires_and_is_told(stack: Stack, alert: str) -> None:
    def told() -> bool:
        stack.look()
        return (alert, alert) in stack.reached & stack.pager.firing.keys()

    wait_for(f"{alert} reaches Alertmanager and the pager", told, within=WITHIN)
    annotations = stack.pager.firing[alert, alert]["annotations"]
    assert alert in annotations["description"]  # the name of the pool
    assert annotations["runbook_url"] == f"runbook.md#{alert.lower()}"
    assert f"var-pool={alert}" in annotations["dashboard_url"]


@pytest.mark.parametrize("alert", ALERTS)
def test_it_resolves_and_that_is_told(stack: Stack, alert: str) -> None:
    def over() -> bool:
        return (alert, alert) not in stack.look() and (alert, alert) in stack.pager.resolved

    wait_for(f"{alert} ends", over, within=WITHIN)


def test_what_is_critical_silences_the_warning_that_says_the_same(stack: Stack) -> None:
    def silenced() -> bool:
        stack.look()
        return SILENCED in stack.inhibited

    wait_for(f"{SILENCED} is inhibited", silenced, within=WITHIN)


def test_a_pool_without_trouble_raises_no_alert(stack: Stack) -> None:
    # Not the example's: on a machine that is busy enough, its callers do wait for long.
    stack.look()
    assert [alert for alert, pool in stack.reached if pool == "healthy"] == []
