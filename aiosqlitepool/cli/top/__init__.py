"""Show the state of pools in a terminal, from a `/metrics` endpoint: `python -m aiosqlitepool top URL`.

Needs the extra `top`. `scrape` reads the endpoint, `figures` computes rates and percentiles, `board` renders them, and
`cli` combines the three. Only `board` imports rich, and only `scrape` imports prometheus_client.
"""

from .cli import main

__all__ = ["main"]
