"""The commands of `python -m aiosqlitepool`: `demo`, `top` and `export`."""
