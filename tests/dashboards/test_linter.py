"""The rules of Grafana's dashboard-linter that apply to these boards, each under its own name.

`dashboards/.lint` says, for the linter itself, which do not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import promql_parser
import pytest
import yaml

from dashboards.render.board import Json, board_files, panels, queries, read

from .promql import RATE_INTERVAL, Selector, parsed, selectors

BOARDS = {path.stem: read(path) for path in board_files()}
each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)

# Of the units that the linter accepts, those that a pool can have.
UNITS = {"none", "short", "percentunit", "s", "ops", "cpm", "decbytes"}


def variable(board: Json, name: str) -> Json:
    (found,) = [variable for variable in board["templating"]["list"] if variable["name"] == name]
    assert isinstance(found, dict)
    return found


def excluded(rule: str) -> set[str]:
    """The panels that a rule of the linter does not apply to."""
    exclusions = yaml.safe_load((board_files()[0].parent / ".lint").read_text())["exclusions"]
    return {entry["panel"] for entry in exclusions[rule]["entries"]}


def every_selector(board: Json) -> Iterator[Selector]:
    return itertools.chain.from_iterable(selectors(query.expr) for query in queries(board))


@each_board
def test_template_datasource_rule(board: Json) -> None:
    """As far as it goes with three data sources: one for Prometheus, first, under the name and label it demands."""
    kinds = [found for found in board["templating"]["list"] if found["type"] == "datasource"]
    assert (kinds[0]["name"], kinds[0]["label"], kinds[0]["query"]) == ("datasource", "Data source", "prometheus")
    for other in kinds[1:]:
        assert other["name"] == f"{other['query']}_datasource"
        assert other["label"] == f"{other['query'].title()} data source"


@each_board
@pytest.mark.parametrize("name", ["job", "instance"])
def test_template_job_and_instance_rules(board: Json, name: str) -> None:
    found = variable(board, name)
    assert found["type"] == "query"
    assert found["datasource"]["uid"] == "${datasource}"
    assert found["label"] == name.title()
    assert found["multi"]
    assert found["allValue"] == ".+"


@each_board
@pytest.mark.parametrize("name", ["job", "instance", "pool"])
def test_template_label_promql_rule(board: Json, name: str) -> None:
    function, _, rest = variable(board, name)["query"].partition("(")
    selector, _, label = rest.removesuffix(")").rpartition(", ")
    assert function == "label_values"
    assert parsed(selector).name == "db_client_connection_max"
    assert label in ("job", "instance", "db_client_connection_pool_name")


@each_board
@pytest.mark.parametrize("name", ["job", "instance", "pool"])
def test_template_on_time_change_reload_rule(board: Json, name: str) -> None:
    on_time_range_change = 2
    assert variable(board, name)["refresh"] == on_time_range_change


@each_board
def test_uneditable_dashboard(board: Json) -> None:
    assert board["editable"] is False


@each_board
def test_panel_datasource_rule(board: Json) -> None:
    names = {found["name"] for found in board["templating"]["list"] if found["type"] == "datasource"}
    for panel in panels(board):
        assert panel["datasource"]["uid"] in {f"${{{name}}}" for name in names}


@each_board
def test_panel_title_description_rule(board: Json) -> None:
    for panel in panels(board):
        assert panel["title"]
        assert panel["description"]


@each_board
def test_panel_units_rule(board: Json) -> None:
    for panel in panels(board):
        units = [panel["fieldConfig"]["defaults"]["unit"]]
        for override in panel["fieldConfig"]["overrides"]:
            units += [found["value"] for found in override["properties"] if found["id"] == "unit"]
        assert set(units) <= UNITS


@each_board
def test_panel_no_targets_rule(board: Json) -> None:
    for panel in panels(board):
        assert panel["targets"]


@each_board
def test_target_promql_rule(board: Json) -> None:
    for query in queries(board):
        parsed(query.expr)


@each_board
def test_target_rate_interval_rule(board: Json) -> None:
    for selector in every_selector(board):
        if selector.function in ("rate", "irate"):
            assert selector.seconds == RATE_INTERVAL


@each_board
def test_target_job_and_instance_rules(board: Json) -> None:
    for selector in every_selector(board):
        for label in ("job", "instance"):
            assert selector.matchers[label] == (promql_parser.MatchOp.Re, f"${label}")


@each_board
def test_target_counter_agg_rule(board: Json) -> None:
    for query in queries(board):
        for selector in selectors(query.expr):
            if selector.name.endswith("_total") and query.panel not in excluded("target-counter-agg-rule"):
                assert selector.function in ("rate", "irate", "increase")


@each_board
def test_target_logql_auto_rule(board: Json) -> None:
    """A query for records has no range, so there is none to spell otherwise than `$__auto`."""
    for query in queries(board, source="loki"):
        assert "[" not in query.expr.replace("[.]", "")


def test_an_exception_for_the_linter_names_a_panel_that_there_is() -> None:
    exclusions = yaml.safe_load((board_files()[0].parent / ".lint").read_text())["exclusions"]
    titles = {panel["title"] for board in BOARDS.values() for panel in panels(board)}
    for rule in exclusions.values():
        assert rule["reason"]
        assert {entry["panel"] for entry in rule.get("entries", ())} <= titles
