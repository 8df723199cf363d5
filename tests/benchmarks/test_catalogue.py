from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from benchmarks.harness.catalogue import ROOT, ContenderFile, contenders, pythons, workloads
from benchmarks.harness.claims import CLAIMS
from benchmarks.inside.cores import REGIMES
from benchmarks.workloads import named

PINS = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "versions.txt").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("contender", contenders().values(), ids=lambda contender: contender.name)
def test_every_requirement_of_a_contender_is_pinned(contender: ContenderFile) -> None:
    loose = [each for each in contender.requirements if "==" not in each]
    assert [each for each in loose if re.split(r"[\[;<>~ ]", each)[0] not in PINS] == []


def test_the_limits_come_first_and_this_pool_and_database_last() -> None:
    names = list(contenders())
    assert names[:2] == ["plain_sqlite3", "floor"]
    ours = [name for name in names if name.startswith("this_")]
    assert names[-len(ours) :] == ours
    assert ours[0] == "this_pool"


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


def test_whom_a_workload_invites_exists_and_wants_to_come() -> None:
    known = contenders()
    for name, workload in workloads().items():
        assert [each for each in workload.contenders if not known[each].takes_part(name)] == []


def test_what_a_claim_compares_takes_part() -> None:
    known, all_workloads = contenders(), workloads()
    for workload, case, contender in (each for claim in CLAIMS for each in claim.compared()):
        played = all_workloads[workload]
        assert case in {named(each, regime) for each in played.cases for regime in played.regimes(REGIMES)}
        assert known[contender].takes_part(workload)
        assert played.invites(contender)


def test_every_contender_takes_part_in_something() -> None:
    for name, contender in contenders().items():
        assert any(contender.takes_part(each) and workload.invites(name) for each, workload in workloads().items())


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
