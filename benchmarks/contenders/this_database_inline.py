# /// script
# dependencies = ["aiosqlite", "uvloop"]
# [tool.bench]
# title = "this database, inline, fetch_one()"
# tree = []
# workloads = ["fetch"]
# ///
"""The same, and short reads run in the thread of the event loop."""

from __future__ import annotations

from typing import ClassVar

from .this_database import ThisDatabase


class ThisDatabaseInline(ThisDatabase):
    options: ClassVar = {"inline_reads": True}


contender = ThisDatabaseInline
