"""Each alert, fired for real by what it describes, tells the pager, and ends when the trouble does.

Once for the metrics of the Prometheus subscriber, once for those of OpenTelemetry's exporter: with the same rules.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from ..support.debian import queried, wait_for
from .conftest import EXPECTED, ROOT, Alert, Stack, silenced_by
from .troubles import SUBSCRIBERS, TROUBLES, pool_name

# Everything goes wrong at the same time, and each trouble ends as soon as its alert is told: the longest wait for
# a trouble that lasts. The deadlines tell what never comes from what comes late.
pytestmark = pytest.mark.timeout(600)
WITHIN = 300.0

each_alert = pytest.mark.parametrize("alert", EXPECTED, ids=[pool for _, pool in EXPECTED])


def test_there_is_a_trouble_for_every_alert() -> None:
    groups = yaml.safe_load((ROOT / "metrics" / "alerts.yml").read_text())["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"]]
    assert sorted([*TROUBLES, STOPPED]) == sorted(alerts)


STOPPED = "AiosqlitepoolTelemetryStopped"
SAMPLE = b'db_client_connection_max{db_system_name="sqlite", db_client_connection_pool_name="app.db"} 5\n'


def test_a_service_that_is_gone_is_told_of_by_its_name(stack: Stack) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")  # Prometheus 3 takes nothing without it
            self.end_headers()
            self.wfile.write(SAMPLE)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            stack.scrape(f"http://127.0.0.1:{server.server_port}", job="gone")
            known = 'db_client_connection_max{job="gone"}'
            wait_for("Prometheus scrapes it", lambda: queried(stack.prometheus, known), within=WITHIN)
        finally:
            server.shutdown()
            thread.join()
    told = wait_for("the pager is told", lambda: stack.pager.firing.get((STOPPED, "")), within=WITHIN)
    assert told["labels"]["job"] == "gone"


@each_alert
def test_it_fires_and_is_told(stack: Stack, alert: Alert) -> None:
    def told() -> bool:
        stack.look()
        return alert in stack.reached & stack.pager.firing.keys()

    wait_for(f"{alert} reaches Alertmanager and the pager", told, within=WITHIN)
    (name, pool), annotations = alert, stack.pager.firing[alert]["annotations"]
    assert pool in annotations["description"]
    assert annotations["runbook_url"] == f"runbook.md#{name.lower()}"
    assert parse_qs(urlsplit(annotations["dashboard_url"]).query)["var-pool"] == [pool]


@each_alert
def test_it_resolves_and_that_is_told(stack: Stack, alert: Alert) -> None:
    def over() -> bool:
        return alert not in stack.look() and alert in stack.pager.resolved

    wait_for(f"{alert} ends", over, within=WITHIN)


@pytest.mark.parametrize("subscriber", SUBSCRIBERS)
def test_a_slow_statement_is_named_with_what_its_plan_warns_of(stack: Stack, subscriber: str) -> None:
    slow = ("AiosqlitepoolSlowStatements", pool_name("AiosqlitepoolSlowStatements", subscriber))
    labels = wait_for("the pager is told", lambda: stack.pager.firing.get(slow), within=WITHIN)["labels"]
    assert labels["db_query_summary"] == "SELECT orders"
    assert labels["aiosqlitepool_statement_plan_warning"] == "full scan of orders"


@pytest.mark.parametrize("silenced", [silenced for alert in EXPECTED if (silenced := silenced_by(alert))])
def test_what_says_more_silences_the_warning_that_says_the_same(stack: Stack, silenced: Alert) -> None:
    def inhibited() -> bool:
        stack.look()
        return silenced in stack.inhibited

    wait_for(f"{silenced} is inhibited", inhibited, within=WITHIN)


def test_a_pool_without_trouble_raises_no_alert(stack: Stack) -> None:
    # Not the example's: on a machine that is busy enough, its callers do wait for long.
    stack.look()
    assert [alert for alert, pool in stack.reached if pool.startswith("healthy")] == []
