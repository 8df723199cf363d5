"""Show the pools of a running program in a terminal: `python -m aiosqlitepool top URL`.

Needs the extra `top`. From a `/metrics` endpoint, the state of the pools: `scrape` reads it, `figures` computes rates
and percentiles, `board` renders them. From a debug page, the same with the holders: `page_figures` computes them; and
with `--statements`, the statements that ran: `statements` reads them, `statements_board` renders them. `page` reads the
JSON of a debug page. All read through `endpoint`, and `cli` combines them. Only the two boards import rich, and only
`scrape` imports prometheus_client.
"""

from .cli import main

__all__ = ["main"]
