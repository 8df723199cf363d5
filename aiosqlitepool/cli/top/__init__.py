"""What pools are doing, in a terminal, from any `/metrics` endpoint: `python -m aiosqlitepool top URL`.

Needs the extra `top`. `scrape` asks the endpoint and reads what is ours, `figures` makes numbers for people of it,
`board` shows them, `cli` puts them together. Only `board` knows rich, only `scrape` knows prometheus_client.
"""

from .cli import main

__all__ = ["main"]
