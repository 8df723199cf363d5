"""What an on-call engineer may expect of every board, panel and link."""

from __future__ import annotations

import itertools
import re
from urllib.parse import parse_qs, urlsplit

import pytest

from aiosqlitepool.subscribers import _metrics as _semconv
from dashboards import build
from dashboards.render.board import Json, board_files, panels, read

BOARDS = {board["uid"]: board for board in map(read, board_files())}
ALL_PANELS = [
    pytest.param(panel, id=f"{uid}: {panel['title']}") for uid, board in BOARDS.items() for panel in panels(board)
]
each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
each_panel = pytest.mark.parametrize("panel", ALL_PANELS)


def test_the_boards_are_those_that_alerts_and_readers_link_to() -> None:
    assert set(BOARDS) == {"aiosqlitepool-overview", "aiosqlitepool-pool"}


def test_the_files_are_what_the_code_makes() -> None:
    """If not: `make boards`."""
    assert {path: path.read_text(encoding="utf-8") for path in board_files()} == dict(build.boards())


@each_board
def test_it_is_a_classic_board_that_grafana_10_reads(board: Json) -> None:
    assert board["schemaVersion"] <= 42
    assert "elements" not in board


@each_board
def test_ids_are_unique(board: Json) -> None:
    rows = [panel for panel in board["panels"] if panel["type"] == "row"]
    ids = [panel["id"] for panel in (*rows, *panels(board))]
    assert sorted(set(ids)) == sorted(ids)


@each_board
def test_titles_are_unique_in_it(board: Json) -> None:
    """Runbooks name panels by their titles."""
    titles = [panel["title"] for panel in panels(board)]
    assert sorted(set(titles)) == sorted(titles)


def cells(panel: Json) -> set[tuple[int, int]]:
    at = panel["gridPos"]
    return set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))


@each_board
def test_no_two_panels_overlap_and_none_leaves_the_grid(board: Json) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        for cell in cells(panel):
            assert 0 <= cell[0] < 24
            assert cell not in taken, f"{panel['title']} overlaps {taken[cell]}"
            taken[cell] = panel["title"]


@each_board
def test_every_row_is_filled_from_side_to_side(board: Json) -> None:
    covered = set().union(*map(cells, board["panels"]))
    height = 1 + max(y for _, y in covered)
    assert covered == set(itertools.product(range(24), range(height)))


@each_board
def test_it_can_be_narrowed_to_one_process_and_widened_to_a_thousand(board: Json) -> None:
    names = [variable["name"] for variable in board["templating"]["list"]]
    assert names == ["datasource", "tempo_datasource", "loki_datasource", "job", "instance", "pool"]
    assert all(variable["allValue"] == ".+" for variable in board["templating"]["list"][3:])


@each_board
def test_alerts_are_marked_on_its_panels(board: Json) -> None:
    (alerts,) = board["annotations"]["list"]
    assert alerts["enable"]
    assert 'ALERTS{alertname=~"Aiosqlitepool.*", alertstate="firing"' in alerts["expr"]


@each_board
def test_an_alert_that_has_no_pool_or_instance_is_marked_too(board: Json) -> None:
    (alerts,) = board["annotations"]["list"]
    for variable in ("$job", "$instance", "$pool"):
        assert f'=~"{variable}|"' in alerts["expr"]


@each_panel
def test_it_has_a_title_and_a_unit(panel: Json) -> None:
    assert panel["title"]
    assert panel["fieldConfig"]["defaults"]["unit"]


@each_panel
def test_its_description_asks_a_question_and_says_what_to_do(panel: Json) -> None:
    assert re.fullmatch(r"\*\*[^*]+\?\*\* .{60,}\.", panel["description"])


@each_panel
def test_it_has_thresholds_that_rise_from_a_base(panel: Json) -> None:
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert steps[0]["value"] is None
    marks = [step["value"] for step in steps[1:]]
    assert marks == sorted(marks)


@each_panel
def test_each_of_its_queries_has_a_letter_of_its_own(panel: Json) -> None:
    letters = [target["refId"] for target in panel["targets"]]
    assert letters == sorted(set(letters))


@each_panel
def test_it_asks_the_data_source_that_was_chosen(panel: Json) -> None:
    variables = {"prometheus": "${datasource}", "tempo": "${tempo_datasource}", "loki": "${loki_datasource}"}
    for holder in (panel, *panel["targets"]):
        assert holder["datasource"]["uid"] == variables[holder["datasource"]["type"]]


@each_panel
def test_one_that_reads_a_table_or_a_number_asks_once_and_a_curve_asks_for_every_step(panel: Json) -> None:
    instant = panel["type"] in ("stat", "bargauge", "table")
    for target in panel["targets"]:
        if target["datasource"]["type"] == "prometheus":
            assert target["instant"] == instant


def test_waits_lead_to_their_traces() -> None:
    for board in BOARDS.values():
        (waits,) = [panel for panel in panels(board) if panel["title"] == "Waits"]
        assert any(target.get("exemplar") for target in waits["targets"])


@each_panel
def test_exemplars_are_asked_for_by_the_first_query_of_their_metric(panel: Json) -> None:
    """Grafana leaves them out of the others."""
    metrics = [re.findall(r"db_client_\w+_bucket", target.get("expr", "")) for target in panel["targets"]]
    for place, target in enumerate(panel["targets"]):
        if target.get("exemplar"):
            assert metrics[place]
            assert metrics.index(metrics[place]) == place


def links(board: Json) -> list[str]:
    overrides = (override for panel in panels(board) for override in panel["fieldConfig"]["overrides"])
    properties = (found for override in overrides for found in override["properties"] if found["id"] == "links")
    return [link["url"] for link in (*board["links"], *itertools.chain(*(found["value"] for found in properties)))]


@each_board
def test_every_link_leads_to_a_board_and_sets_variables_that_it_has(board: Json) -> None:
    assert links(board)
    for url in map(urlsplit, links(board)):
        target = BOARDS[url.path.removeprefix("/d/")]
        names = {f"var-{variable['name']}" for variable in target["templating"]["list"]}
        assert {name for name in parse_qs(url.query) if name.startswith("var-")} <= names


@each_board
def test_it_links_to_the_other_one_and_takes_the_choices_and_the_time_along(board: Json) -> None:
    (link,) = board["links"]
    (other,) = BOARDS.keys() - {board["uid"]}
    assert link["url"] == f"/d/{other}"
    assert link["includeVars"]
    assert link["keepTime"]


def test_a_hot_instance_leads_to_its_pool_in_depth() -> None:
    (link,) = set(links(BOARDS["aiosqlitepool-overview"])) - {"/d/aiosqlitepool-pool"}
    chosen = parse_qs(urlsplit(link).query, keep_blank_values=True)
    assert set(chosen) == {"var-datasource", "var-job", "var-instance", "var-pool", "${__url_time_range}"}
    (table,) = [panel for panel in panels(BOARDS["aiosqlitepool-overview"]) if panel["title"] == "Hottest instances"]
    columns = {new for change in table["transformations"] for new in change["options"].get("renameByName", {}).values()}
    assert {"job", "instance", "pool"} <= columns


@each_board
def test_what_a_link_takes_from_a_row_is_encoded(board: Json) -> None:
    """A name may have any character: `c++.db` would arrive as `c  .db`, and `a&b.db` as `a`."""
    for link in links(board):
        assert all(
            field.endswith(":percentencode") for field in re.findall(r"\$\{(__data[^}]*|datasource[^}]*)\}", link)
        )


@each_board
def test_the_pools_can_be_several_so_that_grafana_escapes_their_names(board: Json) -> None:
    """Of a variable with one value, Grafana puts the name into a regular expression as it is."""
    for variable in board["templating"]["list"][3:]:
        assert variable["multi"] is True


@each_panel
def test_a_search_for_traces_or_records_escapes_the_names_of_pools(panel: Json) -> None:
    """As regular expressions, in raw strings: in a string with quotes, the backslash would be an escape of its own."""
    for target in panel["targets"]:
        if target["datasource"]["type"] != "prometheus":
            text = target.get("expr") or target["query"]
            assert "=~ `${pool:regex}`" in text
            assert text.count("$") == 1


def overrides(panel: Json) -> dict[str, Json]:
    """The properties of a panel's series that differ, by their names."""
    return {
        override["matcher"]["options"]: {each["id"]: each["value"] for each in override["properties"]}
        for override in panel["fieldConfig"]["overrides"]
    }


@each_panel
def test_thresholds_are_drawn_for_the_left_axis_only(panel: Json) -> None:
    for looks in overrides(panel).values():
        if looks.get("custom.axisPlacement") == "right":
            assert looks["custom.thresholdsStyle"] == {"mode": "off"}


@each_panel
def test_a_limit_is_not_drawn_as_an_alarm(panel: Json) -> None:
    for name, looks in overrides(panel).items():
        if name == "max" and "color" in looks:
            assert looks["color"] == {"mode": "fixed", "fixedColor": "text"}


@each_panel
def test_an_axis_of_counts_is_not_that_of_a_hundred_when_all_are_zero(panel: Json) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    if panel["type"] == "timeseries" and defaults["unit"] in ("cpm", "short"):
        marks = [step["value"] for step in defaults["thresholds"]["steps"][1:]]
        assert defaults["custom"]["axisSoftMax"] == (marks[-1] if marks else 1)


@each_panel
def test_a_name_beside_a_number_can_be_read_and_is_not_cut_off(panel: Json) -> None:
    sizes = {"stat": {"titleSize": 14, "valueSize": 30}, "bargauge": {"titleSize": 12, "valueSize": 14}}
    assert panel["options"].get("text") == sizes.get(panel["type"])


@each_board
def test_what_is_nothing_but_zeros_in_good_times_is_folded(board: Json) -> None:
    (row,) = [panel for panel in board["panels"] if panel["title"] == "What goes wrong?"]
    assert row["collapsed"]
    assert "Failed health checks" in [panel["title"] for panel in row["panels"]]


def test_panels_over_many_instances_show_the_hottest_only() -> None:
    for board in BOARDS.values():
        for panel in panels(board):
            for target in panel["targets"]:
                if "{{instance}}" in target.get("legendFormat", ""):
                    assert target["expr"].startswith("topk("), panel["title"]


def test_panels_of_databases_say_that_there_is_none_where_there_are_only_pools() -> None:
    of_databases = {metric.family for metric in _semconv.METRICS if metric.database}
    for board in BOARDS.values():
        shown = [
            panel["fieldConfig"]["defaults"]["noValue"]
            for panel in panels(board)
            if any(name in target.get("expr", "") for target in panel["targets"] for name in of_databases)
        ]
        assert shown
        assert all("SQLiteDatabase" in text for text in shown)


@pytest.mark.parametrize(
    ("told_apart", "argument"),
    [
        ("aiosqlitepool_statement_time_seconds", "statement_summaries=20"),
        ("by (aiosqlitepool_acquire_label)", "by_label"),
    ],
)
def test_panels_of_what_a_subscriber_must_be_asked_for_say_so(told_apart: str, argument: str) -> None:
    for board in BOARDS.values():
        (shown,) = [
            panel for panel in panels(board) if any(told_apart in target.get("expr", "") for target in panel["targets"])
        ]
        assert argument in shown["fieldConfig"]["defaults"]["noValue"]
        assert argument in shown["description"]


@each_board
def test_the_statements_have_a_row_of_their_own(board: Json) -> None:
    (row,) = [panel for panel in board["panels"] if panel["title"] == "What runs?"]
    titles = [panel["title"] for panel in panels(board) if panel["gridPos"]["y"] == row["gridPos"]["y"] + 1]
    assert titles == ["Time by statement", "P99 by operation", "Slow statements", "Connections in use by label"]


def test_logs_are_asked_for_only_when_somebody_opens_their_row() -> None:
    for board in BOARDS.values():
        top = [panel["type"] for panel in board["panels"]]
        assert "logs" not in top
