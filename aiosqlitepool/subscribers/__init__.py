"""Ready-made subscribers: each turns a pool's events into what one library shows.

`prometheus`, `opentelemetry` and `structlog` each need the library they are named after, and the extra of that name
brings it: `pip install "aiosqlitepool[prometheus]"`. Import the one you want; this package itself imports none.
"""
