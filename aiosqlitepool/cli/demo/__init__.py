"""The demo: a real database, two workloads, each without and with a pool, and what the pool had to tell of it.

Run it with `python -m aiosqlitepool demo`; it needs the extra `demo`. `data` builds the database, `load` runs the
workloads, `report` shows both, `cli` puts them together. Only `report` knows rich.
"""

from .cli import main

__all__ = ["main"]
