"""The command, as a user calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.catalogue import ROOT
from benchmarks.harness.environments import CACHE


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT.parent, capture_output=True, text=True, timeout=280, check=False)


def test_a_small_run_makes_an_environment_and_prints_its_table(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    only = ("--workload", "selects", "--contender", "plain_sqlite3", "--output", str(output))
    ended = bench("--quick", "--scale", "0.0005", "--effort", "0.01", *only)
    assert ended.returncode == 0, ended.stderr
    assert "\n2 rounds, about 0 minutes\n" in ended.stdout
    assert "**5 connections, two cores**" in ended.stdout
    assert "| plain sqlite3, one thread (the limit) |" in ended.stdout
    assert len(json.loads(output.read_text(encoding="utf-8"))["records"]) == 2
    assert list((CACHE / "environments").glob("uvloop-3.*/bin/python"))


def test_a_python_that_is_not_there_is_told_with_those_that_are() -> None:
    ended = bench("--python", "2.7")
    assert ended.returncode == 2
    assert f"no CPython 2.7 here (found: {sys.version_info[0]}." in ended.stderr


@pytest.mark.parametrize(
    "wrong", [("--workload", "naps"), ("--scale", "nan"), ("--rounds", "0"), ("--loop", "trio"), ("--regime", "six")]
)
def test_a_wrong_option_is_named(wrong: tuple[str, str]) -> None:
    ended = bench(*wrong)
    assert ended.returncode == 2
    assert f"argument {wrong[0]}" in ended.stderr


def test_reporting_on_something_else_says_that_it_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    ended = bench("report", str(tmp_path / "other.json"))
    assert ended.returncode == 2
    assert "other.json is no result" in ended.stderr
