"""The commands of `python -m aiosqlitepool`: the demo, `top`, and the export of the SRE pack."""
