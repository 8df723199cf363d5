"""The demo: two read workloads, each without and with a pool, and three ways to write, on a generated database.

Run it with `python -m aiosqlitepool demo`. It needs the extra `demo`. `data` builds the database, `load` and `orders`
run the workloads, `report` shows the results, and `cli` combines them. Only `report` imports rich.
"""

from .cli import main

__all__ = ["main"]
