"""`export --keep-labels` and `--selector`: which queries, links and variables they change, and what they refuse."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiosqlitepool.__main__ import main
from aiosqlitepool.cli.export import export
from aiosqlitepool.cli.fleet import Fleet, labels, selector

OPTIONS = ["--keep-labels", "cluster, namespace", "--selector", 'job="api"']
KEPT, PICKED = "cluster, namespace, ", 'job="api"'
LABELS = r"(?:job|db_client_connection_pool_name)\b"
SERIES = re.compile(r"(?<![\w:])(?:db_client|aiosqlitepool)_\w+(?![\w:])(\{[^}]*\})?")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    assert main(["export", str(folder), *OPTIONS]) == 0
    return folder


def board(folder: Path, name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "dashboards" / name).read_text())
    return read


def strings(value: object, key: str) -> Iterator[str]:
    """Every string of this key in a file."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name == key and isinstance(each, str):
                yield each
            yield from strings(each, key)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each, key)


def queries(folder: Path) -> list[str]:
    metrics = [yaml.safe_load((folder / "metrics" / name).read_text()) for name in ("rules.yml", "alerts.yml")]
    boards = [board(folder, name) for name in ("overview.json", "pool.json")]
    return [query for each in (*metrics, *boards) for query in strings(each, "expr")]


# -- queries


def test_each_aggregation_and_match_by_job_or_pool_keeps_the_labels(pack: Path) -> None:
    grouped = [found for query in queries(pack) for found in re.findall(r"\b(?:by|on) \(([^)]+)\)", query)]
    of_pools = [found for found in grouped if re.search(LABELS, found)]
    assert len(of_pools) > 100
    assert [found for found in of_pools if not found.startswith(KEPT)] == []
    # What is a sum of all that a board picks stays one.
    assert {"le", "error_type"} <= set(grouped)


# Where the names of labels are, and not of series.
LABEL_NAMES = re.compile(r"\b(?:by|on) \([^)]*\)|\w+:\w+:\w+\{[^}]*\}|ALERTS\{[^}]*\}|\"db_client_[a-z_]+\"")


def test_each_query_of_scraped_series_has_the_selector(pack: Path) -> None:
    asked = [found[1] or "" for query in queries(pack) for found in SERIES.finditer(LABEL_NAMES.sub("", query))]
    assert len(asked) > 100
    assert [matchers for matchers in asked if not matchers.endswith(f"{PICKED}}}")] == []


def test_recorded_series_have_no_selector_because_they_lack_its_labels(pack: Path) -> None:
    recorded = [found for query in queries(pack) for found in re.findall(r"\w+:\w+:\w+\{[^}]*\}", query)]
    assert recorded
    assert [each for each in recorded if PICKED in each] == []


def test_each_query_of_a_board_has_the_variables_of_the_kept_labels(pack: Path) -> None:
    for name in ("overview.json", "pool.json"):
        asked = [query for query in strings(board(pack, name)["panels"], "expr") if 'job=~"$job"' in query]
        assert asked
        for query in asked:
            assert query.count('cluster=~"$cluster", namespace=~"$namespace"') == query.count('job=~"$job"')


# -- boards


@pytest.mark.parametrize("name", ["overview.json", "pool.json"])
def test_a_board_has_a_variable_for_each_label_that_picks_from_those_before_it(name: str, pack: Path) -> None:
    variables = [each for each in board(pack, name)["templating"]["list"] if each["type"] == "query"]
    assert [each["name"] for each in variables] == ["cluster", "namespace", "job", "instance", "pool"]
    assert [each["label"] for each in variables[:2]] == ["Cluster", "Namespace"]
    before = 'label_values(db_client_connection_max{db_system_name="sqlite"'
    assert variables[0]["query"] == f"{before}, {PICKED}}}, cluster)"
    assert variables[1]["query"] == f'{before}, cluster=~"$cluster", {PICKED}}}, namespace)'
    assert variables[2]["query"] == f'{before}, cluster=~"$cluster", namespace=~"$namespace", {PICKED}}}, job)'
    assert all('namespace=~"$namespace"' in each["query"] for each in variables[3:])
    assert variables[4]["query"].endswith(", db_client_connection_pool_name)")


def test_a_board_shows_the_alerts_of_the_picked_labels_and_of_none(pack: Path) -> None:
    (firing,) = strings(board(pack, "overview.json")["annotations"], "expr")
    assert 'cluster=~"$cluster|", namespace=~"$namespace|", job=~"$job|"' in firing


def test_links_pass_the_kept_labels_on(pack: Path) -> None:
    links = [url for url in strings(board(pack, "overview.json"), "url") if "var-job" in url]
    assert links
    for url in links:
        assert re.search(r"var-cluster=\$\{[^}]*cluster[^}]*\}&var-namespace=\$\{[^}]*namespace[^}]*\}&var-job=", url)
    alerts = yaml.safe_load((pack / "metrics" / "alerts.yml").read_text())
    urls = list(strings(alerts, "dashboard_url"))
    assert len(urls) > 20
    assert all("?var-cluster={{ $labels.cluster | urlquery }}&var-namespace={{ $labels.namesp" in url for url in urls)


def test_legends_of_pools_and_instances_name_the_kept_labels(pack: Path) -> None:
    legends = set(strings(board(pack, "overview.json"), "legendFormat"))
    assert "{{db_client_connection_pool_name}} · {{cluster}} · {{namespace}}" in legends
    assert "{{aiosqlitepool_acquire_path}}" in legends


def test_the_kept_labels_are_the_first_columns_of_a_table(pack: Path) -> None:
    tables = [
        step["options"]["indexByName"]
        for panel in board(pack, "overview.json")["panels"]
        for step in panel.get("transformations", ())
        if "indexByName" in step["options"]
    ]
    assert tables
    for places in tables:
        assert sorted(places, key=lambda column: places[column])[:3] == ["cluster", "namespace", "job"]
        assert sorted(places.values()) == list(range(len(places)))


def test_without_options_boards_and_rules_are_as_shipped(tmp_path: Path) -> None:
    text = '{"any": [1.0]}'
    assert Fleet().applied("dashboards/overview.json", text) is text


def test_a_board_keeps_its_layout(tmp_path: Path) -> None:
    export(tmp_path, selector='job="api"')
    shipped = (Path(__file__).parents[2] / "dashboards" / "overview.json").read_text()
    assert (tmp_path / "dashboards" / "overview.json").read_text().replace(', job=\\"api\\"', "") == shipped


# -- Alertmanager, tests and the runbook


def test_alerts_of_other_clusters_are_other_alerts_to_alertmanager(pack: Path) -> None:
    config = yaml.safe_load((pack / "metrics" / "alertmanager.yml").read_text())
    assert config["route"]["group_by"][:4] == ["alertname", "cluster", "namespace", "job"]
    assert {tuple(rule["equal"][:3]) for rule in config["inhibit_rules"]} == {("cluster", "namespace", "job")}


def test_tests_of_rules_are_left_out_where_a_selector_picks_other_series(pack: Path, tmp_path: Path) -> None:
    assert not (pack / "metrics" / "tests").exists()
    export(tmp_path, keep_labels=["cluster"])
    assert (tmp_path / "metrics" / "tests").is_dir()


def test_the_runbook_stays_as_it_is() -> None:
    assert Fleet(("cluster",)).applied("metrics/runbook.md", "by (job)") == "by (job)"


# -- arguments


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("cluster,my-label", "must be names of Prometheus labels, not 'my-label'"),
        ("", "must be names of Prometheus labels, not ''"),
        ("__name__", "must be names of Prometheus labels, not '__name__'"),
        ("job", "must not contain 'job': rules or boards have this name already"),
        ("pool", "must not contain 'pool': rules or boards have this name already"),
        ("a,b,a", "must not contain a label twice: 'a, b, a'"),
    ],
)
def test_labels_that_cannot_be_kept_are_refused(
    text: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", str(tmp_path), "--keep-labels", text])
    assert ended.value.code == 2
    assert f"argument --keep-labels: {complaint}" in capsys.readouterr().err
    with pytest.raises(ValueError, match=re.escape(f"keep_labels {complaint}")):
        export(tmp_path, keep_labels=text.split(","))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", 'must be matchers such as job="api", env!~"dev|test", not \'\''),
        ("job=api", 'must be matchers such as job="api", env!~"dev|test", not \'job=api\''),
        ('{job="api"}', "must be matchers such as"),
        ('job="api",', "must be matchers such as"),
        ('__name__="up"', "must be matchers such as"),
        ('job="a"} or up{job="b"', "must be matchers such as"),
        ('job="a\nb"', "must be matchers such as"),
        ('job="a: b"', "must not contain ': ' or ' #', which end a value in YAML: 'job=\"a: b\"'"),
        ('job="a #b"', "must not contain ': ' or ' #'"),
    ],
)
def test_a_selector_that_is_no_list_of_matchers_is_refused(
    text: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", str(tmp_path), "--selector", text])
    assert ended.value.code == 2
    assert f"argument --selector: {complaint}" in capsys.readouterr().err
    with pytest.raises(ValueError, match=re.escape(f"selector {complaint}")):
        export(tmp_path, selector=text)
    assert list(tmp_path.iterdir()) == []


def test_what_prometheus_takes_as_matchers_is_taken() -> None:
    for text in ('job="api"', "a='b'".replace("'", '"'), 'job =~ "a|b",env!="x",x!~"}{"', r'path=~"a\\.b\"c"'):
        assert selector(text) == text
    assert labels("cluster , namespace") == ("cluster", "namespace")
