"""`python -m aiosqlitepool export`: what it writes, what it refuses, and that it works from a built wheel."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiosqlitepool.__main__ import main
from aiosqlitepool.cli.export import FilesExistError, _root, export, scale, scaled

ROOT = Path(__file__).parent.parent.parent
PACK = sorted(
    str(path.relative_to(ROOT))
    for path in (*(ROOT / "metrics").rglob("*"), *(ROOT / "dashboards").glob("*.json"))
    if path.is_file()
)


def written(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


# -- where it finds it


def test_the_pack_is_taken_from_the_first_place_that_has_it(tmp_path: Path) -> None:
    checkout, installed = tmp_path / "checkout", tmp_path / "sre"
    (installed / "metrics").mkdir(parents=True)
    (installed / "metrics" / "rules.yml").touch()
    assert _root(checkout, installed) == installed


def test_a_package_without_its_pack_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="installed without its rules and dashboards.*sre has none"):
        _root(tmp_path / "checkout", tmp_path / "sre")


# -- what it writes


def test_it_writes_every_file_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "new" / "pack")]) == 0
    assert written(tmp_path / "new" / "pack") == PACK
    for name in PACK:
        assert (tmp_path / "new" / "pack" / name).read_bytes() == (ROOT / name).read_bytes()
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "new" / "pack" / name) for name in PACK]


def test_writing_the_same_again_is_no_conflict(tmp_path: Path) -> None:
    assert export(tmp_path) == export(tmp_path)


def test_links_lead_where_the_caller_says(tmp_path: Path) -> None:
    urls = ["--runbook-url", "https://wiki.example/pool", "--grafana-url", "https://grafana.example/"]
    assert main(["export", str(tmp_path), *urls]) == 0
    for rule in rules(tmp_path / "metrics" / "alerts.yml"):
        annotations = rule["annotations"]
        assert annotations["runbook_url"] == f"https://wiki.example/pool#{rule['alert'].lower()}"
        assert re.match(r"https://grafana\.example/d/aiosqlitepool-(pool|overview)\?", annotations["dashboard_url"])


def rules(file: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


# -- the switch for durations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("for: 5m", "for: 15s"),
        ("    group_wait: 30s  # not for long", "    group_wait: 1500ms  # not for long"),
        ("- interval: 1h30m", "- interval: 270s"),
        ("expr: sum by (job) (rate(a_total[5m])) > 5", "expr: sum by (job) (rate(a_total[15s])) > 5"),
        ("rate(a_total[1h:1m] offset 10m)", "rate(a_total[180s:3s] offset 30s)"),
        ("for: 0s", "for: 0s"),
        ("for: 1ms", "for: 1ms"),
        ("record: job:a:rate5m", "record: job:a:rate5m"),
        ("description: for 5m", "description: for 5m"),
        ('- targets: ["localhost:8000"]', '- targets: ["localhost:8000"]'),
    ],
)
def test_durations_are_scaled_and_nothing_else(text: str, expected: str) -> None:
    assert scaled(text, 0.05) == expected


def durations(file: Path) -> list[int]:
    """The seconds of every duration in a file, whether a value or the range of a selector."""

    def scalars(value: object) -> Iterator[str]:
        for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from scalars(child)
        if isinstance(value, str):
            yield value

    found = [
        duration
        for text in scalars(yaml.safe_load(file.read_text()))
        for duration in re.findall(r"^(\d+[smhd])$|\[(\d+[smhd])\]", text)
    ]
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return [int(text[:-1]) * seconds[text[-1]] for pair in found for text in pair if text]


@pytest.mark.parametrize("name", ["prometheus.yml", "rules.yml", "alerts.yml", "alertmanager.yml"])
def test_every_duration_of_every_file_is_scaled(name: str, tmp_path: Path) -> None:
    export(tmp_path, time_scale=7)
    shipped = durations(ROOT / "metrics" / name)
    assert shipped
    assert durations(tmp_path / "metrics" / name) == [7 * seconds for seconds in shipped]


def test_a_scaled_pack_has_no_tests_of_unscaled_rules(tmp_path: Path) -> None:
    export(tmp_path, time_scale=0.5)
    assert written(tmp_path) == [name for name in PACK if not name.startswith("metrics/tests/")]


# -- what it refuses


def test_it_overwrites_nothing_and_then_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "metrics" / "alerts.yml"
    mine.parent.mkdir()
    mine.write_text("groups: []\n")
    assert main(["export", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"file exists and differs: {mine}" in said.err
    assert "--force" in said.err
    assert written(tmp_path) == ["metrics/alerts.yml"]
    assert mine.read_text() == "groups: []\n"


def test_force_overwrites(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "alerts.yml").write_text("groups: []\n")
    assert main(["export", str(tmp_path), "--force"]) == 0
    assert (tmp_path / "metrics" / "alerts.yml").read_bytes() == (ROOT / "metrics" / "alerts.yml").read_bytes()


def test_force_keeps_a_copy_of_what_a_user_has_edited_and_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alerts = tmp_path / "metrics" / "alerts.yml"
    for edited in ("first\n", "second\n"):
        export(tmp_path, force=True)
        alerts.write_text(edited)
    capsys.readouterr()
    assert main(["export", str(tmp_path), "--force"]) == 0
    assert alerts.read_bytes() == (ROOT / "metrics" / "alerts.yml").read_bytes()
    assert (alerts.parent / "alerts.yml.bak").read_text() == "first\n"
    assert (alerts.parent / "alerts.yml.bak2").read_text() == "second\n"
    assert capsys.readouterr().err == (
        f"python -m aiosqlitepool export: overwrote a file that differed: {alerts}; it is kept as alerts.yml.bak2\n"
    )
    assert written(tmp_path) == sorted([*PACK, "metrics/alerts.yml.bak", "metrics/alerts.yml.bak2"])


def test_a_caller_of_export_gets_each_overwritten_file_and_its_copy(tmp_path: Path) -> None:
    export(tmp_path)
    rules = tmp_path / "metrics" / "rules.yml"
    rules.write_text("groups: []\n")
    overwritten: list[tuple[Path, Path]] = []
    export(tmp_path, force=True, overwritten=lambda path, copy: overwritten.append((path, copy)))
    assert overwritten == [(rules, tmp_path / "metrics" / "rules.yml.bak")]


def test_force_with_nothing_edited_keeps_no_copies(tmp_path: Path) -> None:
    export(tmp_path)
    export(tmp_path, force=True)
    assert written(tmp_path) == PACK


def test_files_of_others_in_the_directory_stay(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    export(tmp_path, force=True)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_file_where_the_directory_should_be_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["export", str(tmp_path / "file")]) == 1
    assert "Not a directory" in capsys.readouterr().err


def test_a_link_that_leads_nowhere_yet_is_in_the_way(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.yml"
    (tmp_path / "pack" / "metrics").mkdir(parents=True)
    (tmp_path / "pack" / "metrics" / "rules.yml").symlink_to(elsewhere)
    with pytest.raises(FilesExistError, match=r"rules\.yml"):
        export(tmp_path / "pack")
    assert not elsewhere.exists()


def test_something_unreadable_where_a_file_should_be_is_in_the_way(tmp_path: Path) -> None:
    mine = tmp_path / "metrics" / "alerts.yml"
    mine.parent.mkdir()
    mine.write_bytes(b"\xff\xfe")
    with pytest.raises(FilesExistError) as raised:
        export(tmp_path)
    assert raised.value.paths == (mine,)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--format", "helm"], "invalid choice: 'helm' (choose from 'prometheus', 'kubernetes', "),
        (["--time-scale", "0"], "must be a positive number, not '0'"),
        (["--time-scale", "fast"], "must be a positive number, not 'fast'"),
        (["--time-scale", "inf"], "must be a positive number, not 'inf'"),
        (
            ["--runbook-url", "wiki/pool"],
            "must begin with http:// or https:// and contain no spaces, quotes or braces, not 'wiki/pool'",
        ),
        (["--runbook-url", "https://wiki/#pool"], "must not contain #: each alert adds # and its heading"),
        (
            ["--grafana-url", "https://grafana/?orgId=2"],
            "must not contain ? or #: each alert adds the path of a dashboard",
        ),
        (
            ["--grafana-url", "http://a b"],
            "must begin with http:// or https:// and contain no spaces, quotes or braces, not 'http://a b'",
        ),
    ],
)
def test_a_wrong_argument_is_named(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", str(tmp_path), *arguments])
    assert ended.value.code == 2
    assert f"argument {arguments[0]}: {complaint}" in capsys.readouterr().err
    assert written(tmp_path) == []


def test_a_wrong_scale_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="time_scale must be a positive number, not -1"):
        export(tmp_path, time_scale=-1)


def test_a_wrong_format_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format must be one of prometheus, kubernetes, .*, not 'helm'"):
        export(tmp_path, format="helm")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("prometheus", {"metrics", "dashboards"}),
        ("grafana-operator", {"grafanadashboards.yaml"}),
        ("collector", {"collector.yaml"}),
    ],
)
def test_a_format_is_chosen_by_its_name(name: str, expected: set[str], tmp_path: Path) -> None:
    assert main(["export", str(tmp_path), "--format", name]) == 0
    assert {path.name for path in tmp_path.iterdir()} == expected


def test_a_format_overwrites_nothing(tmp_path: Path) -> None:
    mine = tmp_path / "collector.yaml"
    mine.write_text("receivers: {}\n")
    with pytest.raises(FilesExistError) as raised:
        export(tmp_path, format="collector")
    assert raised.value.paths == (mine,)


# -- from a wheel


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_a_built_wheel_in_a_fresh_environment_has_it_all(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel, "aiosqlite")
    run(python, "-I", "-m", "aiosqlitepool", "export", tmp_path / "pack")
    assert written(tmp_path / "pack") == PACK
    run(python, "-I", "-m", "aiosqlitepool", "export", "--format", "mixin", tmp_path / "mixin")
    assert "mixin.libsonnet" in written(tmp_path / "mixin")


def test_a_time_scale_is_any_positive_number() -> None:
    assert (scale("2"), scale("0.5")) == (2.0, 0.5)
