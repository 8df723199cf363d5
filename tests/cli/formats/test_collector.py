"""The format `collector`: settings that the components of the Collector have, and names that the package uses."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from aiosqlitepool.subscribers import _attributes

from .conftest import Exported

SCHEMA = Draft7Validator(json.loads((Path(__file__).parent / "schemas" / "collector.json").read_text()))


@pytest.fixture(scope="module")
def config(exported: Exported) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((exported("collector") / "collector.yaml").read_text())
    return loaded


def policy(config: dict[str, Any], kind: str) -> dict[str, Any]:
    """The settings of the one policy of this kind."""
    policies = config["processors"]["tail_sampling"]["policies"]
    (found,) = [each[kind] for each in policies if each["type"] == kind]
    return dict(found)


def test_its_components_have_the_settings(config: dict[str, Any]) -> None:
    assert [error.message for error in SCHEMA.iter_errors(config)] == []


def test_the_schema_finds_what_is_misspelled(config: dict[str, Any]) -> None:
    wrong = copy.deepcopy(config)
    wrong["exporters"]["prometheus"]["open_metrics"] = True
    wrong["processors"]["tail_sampling"]["policies"][0]["type"] = "status"
    assert len(list(SCHEMA.iter_errors(wrong))) == 2


@pytest.mark.parametrize("kind", ["receivers", "processors", "exporters"])
def test_every_component_is_in_a_pipeline_and_every_pipeline_has_its_components(
    kind: str, config: dict[str, Any]
) -> None:
    used = {name for pipeline in config["service"]["pipelines"].values() for name in pipeline[kind]}
    assert used == set(config[kind])


def test_traces_with_a_span_of_a_pool_are_kept(config: dict[str, Any]) -> None:
    kept = policy(config, "string_attribute")
    assert kept["key"] == _attributes.POOL
    assert kept["enabled_regex_matching"]
    (pattern,) = kept["values"]
    assert re.fullmatch(pattern, "app.db/read")


def test_failed_and_long_traces_are_kept(config: dict[str, Any]) -> None:
    assert policy(config, "status_code") == {"status_codes": ["ERROR"]}
    assert policy(config, "latency")["threshold_ms"] <= 1000


def test_exemplars_leave_it(config: dict[str, Any]) -> None:
    assert config["exporters"]["prometheus"]["enable_open_metrics"]
