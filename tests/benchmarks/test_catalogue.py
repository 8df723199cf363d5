from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from benchmarks.harness.catalogue import ROOT, ContenderFile, contenders, pythons, workloads

PINS = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "versions.txt").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("contender", contenders().values(), ids=lambda contender: contender.name)
def test_every_requirement_of_a_contender_is_pinned(contender: ContenderFile) -> None:
    loose = [each for each in contender.requirements if "==" not in each]
    assert [each for each in loose if re.split(r"[\[;<>~ ]", each)[0] not in PINS] == []


def test_the_limits_come_first_and_this_pool_and_database_last() -> None:
    names = list(contenders())
    assert names[:2] == ["plain_sqlite3", "floor"]
    ours = ["this_pool", "this_pool_prometheus", "this_pool_all", "this_database", "this_database_functions"]
    assert names[-5:] == ours


def test_a_contender_without_metadata_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "nameless.py").write_text('"""Nothing."""\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"nameless\.py has no inline script metadata"):
        ContenderFile.read(tmp_path / "nameless.py")


def test_a_contender_without_a_title_is_refused(tmp_path: Path) -> None:
    (tmp_path / "untitled.py").write_text(
        "# /// script\n# dependencies = []\n# [tool.bench]\n# ///\n", encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"untitled\.py: its inline script metadata lack 'title'"):
        ContenderFile.read(tmp_path / "untitled.py")


def test_every_workload_compares_with_somebody_who_is_there() -> None:
    assert {workload.reference for workload in workloads().values()} <= contenders().keys()


def test_what_a_contender_is_for_exists() -> None:
    limited = [contender for contender in contenders().values() if contender.workloads is not None]
    assert limited
    for contender in limited:
        assert [name for name in workloads() if contender.takes_part(name)] == sorted(contender.workloads or ())


def test_this_python_is_among_those_found() -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert pythons()[version].executable == Path(sys.executable)


@pytest.mark.parametrize("folder", ["inside", "contenders", "workloads"])
def test_what_runs_in_a_contenders_process_knows_nothing_of_the_harness(folder: str) -> None:
    for path in (ROOT / folder).glob("*.py"):
        assert not re.search(r"^\s*(from|import) .*harness", path.read_text(encoding="utf-8"), re.MULTILINE), path.name
