# /// script
# dependencies = ["aiosqlite", "uvloop"]
# [tool.bench]
# title = "this database, without a queue across processes"
# tree = []
# workloads = ["processes"]
# ///
"""The same, and writers of several processes meet in SQLite's busy handler."""

from __future__ import annotations

from typing import ClassVar

from .this_database import ThisDatabase


class ThisDatabaseAlone(ThisDatabase):
    options: ClassVar = {"queue_across_processes": False}


contender = ThisDatabaseAlone
