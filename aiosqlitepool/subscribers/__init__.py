"""Ready-made subscribers: each shows the events of pools through one library.

`prometheus`, `opentelemetry` and `structlog` need the library of the same name, which the extra of that name installs:
`pip install "aiosqlitepool[prometheus]"`. Import the module that you need; this package imports none of them.
"""
