"""Every query of every board, answered by a real Prometheus that scrapes real programs.

One program shows its metrics through prometheus_client, the other through OpenTelemetry: the boards have to make one
picture of both. On a busy machine a scrape may come too late, and for that second its series are gone: a test waits
until they are there.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pytest

from aiosqlitepool.events import DatabaseCode
from aiosqlitepool.subscribers import _metrics as _semconv
from dashboards.render.__main__ import main as render
from dashboards.render.ask import Prometheus, PrometheusError, Series
from dashboards.render.board import Query, board_files, expand, panels, queries, read, variables

from .driver import READERS
from .promql import every_query
from .servers import driver, prometheus, until

pytestmark = pytest.mark.timeout(300)

DIRECT, OTEL = "direct", "through-otel"
INSTANCES = {DIRECT, OTEL}
# As a board would have them: rates over four scrapes, and a range as long as a day of the drivers.
VARIABLES = variables(rate_interval=6, interval=1, span=15)
PATIENCE = 120.0
# Of what no driver can be made to do, the counters are there, at 0.
NEVER = {"", "broken", "other", *get_args(DatabaseCode)} - {"SQLITE_READONLY", "SQLITE_CANTOPEN"}
NEVER_COUNTED = {"aiosqlitepool_connection_abandoned"}
NEVER_FAILS = "aiosqlitepool_checkpoints"

ALERTS = """\
groups:
  - name: alerts
    rules:
      - {alert: AiosqlitepoolOfNobody, expr: vector(1)}
      - {alert: AiosqlitepoolOfAPool, expr: "max by (job, instance, db_client_connection_pool_name) \
(db_client_connection_max) > 0"}
      - {alert: SomebodyElses, expr: vector(1)}
"""


@dataclass
class Live:
    """A Prometheus, and for each query the first answer that had a number in it."""

    server: Prometheus
    answers: dict[str, list[Series]] = field(default_factory=dict)

    def ask(self, expr: str, at: float | None = None, **chosen: str) -> list[Series]:
        return self.server.now(expand(expr, VARIABLES | chosen), at or time.time())

    def ask_all(self, exprs: set[str]) -> bool:
        """Ask what had no answer so far; true when all had."""
        for expr in exprs - self.answers.keys():
            found = self.ask(expr)
            if any(math.isfinite(series.last) for series in found):
                self.answers[expr] = found
        return exprs <= self.answers.keys()


def every_expr() -> set[str]:
    return {query.expr for path in board_files() for query in queries(read(path))}


@pytest.fixture(scope="module")
def live(real_prometheus: None) -> Iterator[Live]:
    with (
        driver("--share", "1.2") as direct,
        driver("--share", "0.8", "--through", "opentelemetry") as otel,
        prometheus({DIRECT: direct, OTEL: otel}, rules=ALERTS) as server,
    ):
        live = Live(server)
        until(lambda: live.ask_all(every_expr()) and both_have_done_everything(live), "all have data", PATIENCE)
        yield live


def counted(live: Live, metric: _semconv.Metric) -> dict[tuple[str, str], float]:
    """How often each instance has counted each value that the metric is told apart by."""
    told_apart = (metric.labels[1:] or metric.labels)[0]
    found = live.ask(f"sum by (instance, {told_apart}) ({metric.family}_total)")
    return {(series.labels["instance"], series.labels.get(told_apart, "")): series.last for series in found}


def both_have_done_everything(live: Live) -> bool:
    for metric in _semconv.COUNTERS:
        counts = counted(live, metric)
        never = NEVER | {"failed"} if metric.family == NEVER_FAILS else NEVER
        for instance in INSTANCES:
            has_any = any(count for (where, _), count in counts.items() if where == instance)
            if not has_any and metric.family not in NEVER_COUNTED:
                return False
            if not all(counts.get((instance, value)) for value in set(metric.known) - never):
                return False
    return True


@every_query()
def test_it_has_an_answer(live: Live, query: Query) -> None:
    assert any(math.isfinite(series.last) for series in live.answers[query.expr])


@every_query()
def test_its_answer_has_no_label_of_a_scope(live: Live, query: Query) -> None:
    for series in live.answers[query.expr]:
        assert not [label for label in series.labels if label.startswith("otel_scope")]


def test_there_were_labels_of_a_scope_to_be_rid_of(live: Live) -> None:
    def scoped() -> set[str]:
        found = live.ask("db_client_connection_max")
        return {series.labels["instance"] for series in found if "otel_scope_name" in series.labels}

    until(lambda: scoped() == {OTEL}, "the labels are there")


@every_query()
def test_it_shows_both_pipelines_where_it_tells_instances_apart(live: Live, query: Query) -> None:
    if query.legend == "{{instance}}" and not query.instant:
        until(lambda: {series.labels["instance"] for series in live.ask(query.expr)} == INSTANCES, "both are there")


@every_query()
def test_each_of_its_series_has_a_name_of_its_own_when_one_pool_is_chosen(live: Live, query: Query) -> None:
    names = [series.name(query.legend) for series in live.ask(query.expr, pool="app.db/read")]
    if "{{" in query.legend:
        assert len(set(names)) == len(names)
        assert all(names)


def panel_now(live: Live, title: str, **chosen: str) -> dict[str, float]:
    """What a panel shows, by legend."""
    found = {query.expr: query for path in board_files() for query in queries(read(path)) if query.panel == title}
    return {
        series.name(query.legend): series.last for query in found.values() for series in live.ask(query.expr, **chosen)
    }


def panel_with(live: Live, title: str, *legends: str, **chosen: str) -> dict[str, float]:
    """What a panel shows, once it has these legends."""
    shown: dict[str, float] = {}

    def has_them() -> bool:
        shown.clear()
        shown.update(panel_now(live, title, **chosen))
        return set(legends) <= shown.keys()

    until(has_them, f"{title} has {legends}")
    return shown


def test_one_pool_of_one_instance_can_be_chosen(live: Live) -> None:
    def until_max_is(most: int, **chosen: str) -> None:
        until(lambda: panel_now(live, "Connections", **chosen).get("max") == most, f"{chosen} has {most}")

    until_max_is(2 * (READERS + 1), pool="app.db/(read|write)")
    until_max_is(2 * READERS, pool="app.db/read")
    until_max_is(READERS, pool="app.db/read", instance=OTEL)
    assert panel_now(live, "Connections", job="another") == {}


def test_used_and_idle_stay_below_max(live: Live) -> None:
    now = panel_with(live, "Connections", "used", "idle", "max", pool="app.db/read")
    assert now["used"] + now["idle"] <= now["max"]


def test_the_sizing_compares_with_the_size_that_one_instance_has(live: Live) -> None:
    def sizes() -> dict[str, float]:
        title = "What pool_size would have been enough?"
        return panel_with(live, title, "max", "demand", "demand at P99", pool="app.db/read")

    assert sizes()["max"] == READERS

    def grows() -> bool:
        found = sizes()
        return 0 < found["demand"] < found["demand at P99"]

    # They look back over slightly different times, so not always.
    until(grows, "holding for longer needs more")


def test_a_burst_asks_for_more_than_there_is(live: Live) -> None:
    def asked_for() -> float:
        return panel_now(live, "What pool_size would have been enough?", pool="app.db/read").get("asked for", 0.0)

    until(lambda: asked_for() > READERS, "a burst was seen")


def test_demand_is_how_many_are_out_on_average(live: Live) -> None:
    """By Little's law, against what scrapes happened to see meanwhile."""
    used = "sum(avg_over_time(db_client_connection_count{db_client_connection_state='used'}[$__rate_interval]))"

    def agree() -> bool:
        demand, seen = panel_now(live, "Demand").get("demand", math.nan), live.ask(used)
        return bool(seen) and seen[0].last / 2 < demand < seen[0].last * 2

    until(agree, "demand is about what is out")


def test_statements_are_shown_by_their_time_and_by_what_their_plans_warn_of(live: Live) -> None:
    def shown(title: str) -> dict[str, float]:
        return panel_now(live, title, pool="app.db/.*")

    panel_with(live, "Time by statement", "SELECT note", "INSERT note", "BEGIN", pool="app.db/.*")
    panel_with(live, "P99 by operation", "SELECT", "INSERT", pool="app.db/.*")
    until(lambda: shown("Slow statements").get("SELECT note full scan of note", 0) > 0, "a search was slow")
    until(lambda: shown("Connections in use by label").get("GET /search", 0) > 0, "a search had a connection")


def test_suspected_leaks_are_shown_by_their_label(live: Live) -> None:
    until(lambda: panel_now(live, "Leaks by label").get("monthly report: ", 0) >= READERS, "a report held every reader")


def test_the_hottest_instances_come_with_all_their_columns(live: Live) -> None:
    found = [query for query in queries(read(board_files()[0])) if query.panel == "Hottest instances"]

    def all_have_them() -> bool:
        at = time.time()
        answered = [live.ask(query.expr, at) for query in found]
        load, *others = [{tuple(sorted(series.labels.items())) for series in answer} for answer in answered]
        return bool(load) and all(other and other <= load for other in others)

    until(all_have_them, "every column has the instances")


def test_waits_have_exemplars_that_name_a_trace(live: Live) -> None:
    def traced() -> list[str]:
        now = time.time()
        found = live.server.exemplars("db_client_connection_wait_time_seconds_bucket", now - 60, now)
        return [labels["trace_id"] for _, _, labels in found]

    until(lambda: bool(traced()), "a wait was traced")
    assert all(re.fullmatch(r"[0-9a-f]{32}", trace) for trace in traced())


def test_the_query_that_shows_exemplars_is_one_that_prometheus_finds_them_by(live: Live) -> None:
    exprs = [
        target["expr"]
        for path in board_files()
        for panel in panels(read(path))
        for target in panel["targets"]
        if target.get("exemplar") and "wait_time" in target["expr"]
    ]
    now = time.time()
    for expr in exprs:
        assert live.server.exemplars(expand(expr, VARIABLES), now - 60, now)


@pytest.mark.parametrize("board", [read(path) for path in board_files()], ids=lambda board: board["uid"])
def test_alerts_of_pools_and_of_nobody_are_annotated_and_others_are_not(live: Live, board: dict[str, object]) -> None:
    (annotation,) = board["annotations"]["list"]  # type: ignore[index]

    def firing(**chosen: str) -> set[tuple[str, str]]:
        pool = "db_client_connection_pool_name"
        found = live.ask(annotation["expr"], **chosen)
        return {(series.labels["alertname"], series.labels.get(pool, "")) for series in found}

    nobody, reads = ("AiosqlitepoolOfNobody", ""), ("AiosqlitepoolOfAPool", "app.db/read")
    writes = ("AiosqlitepoolOfAPool", "app.db/write")
    until(lambda: {nobody, reads, writes} <= firing(), "alerts fire")
    assert {name for name, _ in firing()} <= {"AiosqlitepoolOfNobody", "AiosqlitepoolOfAPool"}
    until(lambda: firing(pool="app.db/read") == {nobody, reads}, "alerts of the pool fire")


def test_the_boards_can_be_plotted_from_it(live: Live, tmp_path: Path) -> None:
    assert render([live.server.url, str(tmp_path), "--minutes=0.25", "--rate=6", "--pool=app.db/read"]) == 0
    assert {picture.name for picture in tmp_path.iterdir()} == {f"{path.stem}.png" for path in board_files()}


def test_what_it_could_not_answer_is_said_with_the_query(live: Live) -> None:
    with pytest.raises(PrometheusError, match=r"parse error.*in sum by \("):
        live.ask("sum by (")


def test_the_variables_find_what_there_is(live: Live) -> None:
    for board in map(read, board_files()):
        for variable in board["templating"]["list"][3:]:
            selector, _, label = variable["query"].removeprefix("label_values(").removesuffix(")").rpartition(", ")
            expected = {"job": {"api"}, "instance": INSTANCES}.get(label, {"app.db/read", "app.db/write"})

            def found(selector: str = selector, label: str = label, expected: set[str] = expected) -> bool:
                return expected <= {series.labels[label] for series in live.ask(selector)}

            until(found, f"{label} has {expected}")
