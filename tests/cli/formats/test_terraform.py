"""The format `terraform`: a module that HCL's grammar accepts, and the dashboards that it reads."""

from __future__ import annotations

from pathlib import Path

import hcl2

from .conftest import Exported
from .shipped import DASHBOARDS


def test_it_is_hcl_that_makes_one_dashboard_of_each_file(exported: Exported) -> None:
    folder = exported("terraform")
    module = hcl2.loads((folder / "main.tf").read_text())
    resources = {name: body for block in module["resource"] for name, body in block.items()}
    assert set(resources) == {'"grafana_folder"', '"grafana_dashboard"'}
    (dashboard,) = [body for name, body in resources['"grafana_dashboard"'].items() if name == '"aiosqlitepool"']
    assert dashboard["for_each"] == '${fileset("${path.module}/dashboards", "*.json")}'
    assert dashboard["config_json"] == '${file("${path.module}/dashboards/${each.key}")}'


def test_it_has_the_dashboards_and_nothing_else(exported: Exported) -> None:
    folder = exported("terraform")
    written = {path.relative_to(folder): path.read_text() for path in folder.rglob("*.json")}
    assert written == {Path("dashboards", f"{name}.json"): text for name, text in DASHBOARDS.items()}
    assert {path.name for path in folder.iterdir()} == {"main.tf", "dashboards"}
