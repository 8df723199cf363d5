"""The files of processes that have ended."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from aiosqlitepool.subscribers import _ended_processes
from aiosqlitepool.subscribers._ended_processes import forget_ended_processes

from ..support.children import child


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    with child([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid


def test_levels_of_an_ended_process_are_removed_and_its_counters_stay(folder: Path, ended: int) -> None:
    names = [f"gauge_livesum_{ended}.db", f"gauge_livemax_{ended}.db", f"gauge_max_{ended}.db", f"counter_{ended}.db"]
    others = [f"gauge_livesum_{os.getpid()}.db", "gauge_live_notes.db"]
    for name in [*names, *others]:
        (folder / name).touch()
    forget_ended_processes()
    assert {path.name for path in folder.iterdir()} == {*names[2:], *others}


def test_a_process_of_another_user_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: int, signal: int) -> None:
        raise PermissionError

    (folder / "gauge_livesum_1.db").touch()
    monkeypatch.setattr(os, "kill", refuse)
    forget_ended_processes()
    assert (folder / "gauge_livesum_1.db").exists()


def test_a_file_that_another_process_removed_first_is_no_error(
    folder: Path, ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(process: int, path: str) -> None:
        raise FileNotFoundError

    (folder / f"gauge_livesum_{ended}.db").touch()
    monkeypatch.setattr(_ended_processes, "mark_process_dead", too_late)
    forget_ended_processes()


def test_without_a_directory_there_is_nothing_to_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    forget_ended_processes()
