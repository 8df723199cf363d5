"""Two processes send storms of cancellations over one database: no lost or phantom commit, and the books balance."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ..support.bank_storm import committed_by, is_free, storm, storm_elsewhere
from ..support.processes import SCHEMA, audit
from ..support.storm import make_database, nothing_left_behind

SEEDS = range(1, 1 + int(os.environ.get("AIOSQLITEPOOL_STORM_SEEDS", "3")))
TASKS = 400


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_commit_is_lost_or_unasked_for_in_a_storm_of_cancellations_from_two_processes(
    seed: int, tmp_path: Path
) -> None:
    path = make_database(tmp_path / "bank.db", SCHEMA)
    with nothing_left_behind():
        async with storm_elsewhere(path, "theirs", seed, TASKS) as reports:
            ours = await storm(path, "ours", seed, TASKS)
    (theirs,) = reports

    assert audit(path, [ours.account, theirs.account]) == []
    assert is_free(path)
    for name, report in (("ours", ours), ("theirs", theirs)):
        assert report.complaints == []
        # Its own events know of each commit, also of those whose callers were cancelled meanwhile, and of no other.
        assert report.committed == committed_by(path, name)
        assert len(report.account.done) <= report.committed
        assert set(report.outcomes) <= {"finished", "CancelledError", "KeyError"}
        assert report.outcomes["finished"] > 50, report.outcomes
        assert report.outcomes["CancelledError"] > 50, report.outcomes
    print(f"seed {seed}: {ours.outcomes}, {ours.committed} commits, {ours.retried} retries; theirs {theirs.committed}")
