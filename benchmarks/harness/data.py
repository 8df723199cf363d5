"""The data set that everybody reads: built once by the demo's own builder, the same at every scale in every run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiosqlitepool.cli.demo.data import Database, Progress, open_or_build

from .environments import CACHE

__all__ = ["data_set", "told_to_workers"]


def data_set(scale: float, progress: Progress) -> Database:
    """The data set at this scale, from the cache if it is there; 1.0 is 1.2 million users and 12 million likes."""
    folder = CACHE / "data"
    folder.mkdir(parents=True, exist_ok=True)
    return open_or_build(folder / f"scale-{scale:g}.db", scale, progress)


def told_to_workers(database: Database) -> Mapping[str, Any]:
    """What a task says of it."""
    return {"database": str(database.path), "users": database.size.users, "posts": database.size.posts}
