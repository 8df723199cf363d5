"""The boards are what Grafana's own types say a board is; `schemas/README.md` tells where the schemas are from."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from dashboards.render.board import Json, board_files, panels, read

SCHEMAS = json.loads((Path(__file__).parent / "schemas" / "grafana.json").read_text())["definitions"]
BOARDS = {path.stem: read(path) for path in board_files()}
each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
each_panel = pytest.mark.parametrize(
    "panel",
    [pytest.param(panel, id=f"{name}: {panel['title']}") for name, board in BOARDS.items() for panel in panels(board)],
)

# What an annotation of Prometheus has besides: the data source's own, which the package does not describe.
OF_PROMETHEUS = {"expr", "step", "titleFormat", "textFormat", "tagKeys"}


def faults(kind: str, thing: Json) -> list[str]:
    """What is wrong with it, as one of this kind."""
    schema = {"$ref": f"#/definitions/{kind}", "definitions": SCHEMAS}
    return [
        f"{'/'.join(map(str, error.path))}: {error.message}" for error in Draft7Validator(schema).iter_errors(thing)
    ]


@each_board
def test_the_board_is_one(board: Json) -> None:
    frame = copy.deepcopy(board)
    frame["panels"] = []
    for annotation in frame["annotations"]["list"]:
        for name in OF_PROMETHEUS:
            del annotation[name]
    assert faults("board", frame) == []


@each_board
def test_its_rows_are_rows(board: Json) -> None:
    for panel in board["panels"]:
        if panel["type"] == "row":
            assert faults("row", panel) == []


@each_panel
def test_the_panel_is_one(panel: Json) -> None:
    assert faults("panel", panel) == []


@each_panel
def test_its_options_are_those_of_its_kind(panel: Json) -> None:
    assert faults(f"{panel['type']}_options", panel["options"]) == []


@each_panel
def test_its_fields_are_configured_as_its_kind_can_be(panel: Json) -> None:
    custom = panel["fieldConfig"]["defaults"].get("custom")
    if custom is not None:
        assert faults(f"{panel['type']}_custom", custom) == []


@each_panel
def test_what_it_overrides_is_something_that_its_kind_has(panel: Json) -> None:
    standard = SCHEMAS["FieldConfig"]["properties"]
    for override in panel["fieldConfig"]["overrides"]:
        for changed in override["properties"]:
            owner, _, name = changed["id"].rpartition("custom.")
            own = SCHEMAS.get(f"{panel['type']}_custom", {}).get("properties", {})
            assert name in (own if changed["id"].startswith("custom.") else standard), owner


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("board", {"schemaVersion": 42, "titel": "misspelled"}),
        ("panel", {"type": "stat", "gridPos": {"x": 0, "y": 0, "w": "wide", "h": 4}}),
        ("timeseries_options", {"legend": {}, "tooltip": {"mode": "all", "sort": "desc"}}),
        ("timeseries_custom", {"drawStyle": "crayon"}),
    ],
)
def test_the_schemas_find_what_is_misspelled(kind: str, wrong: Json) -> None:
    assert faults(kind, wrong)
