"""Write the boards that Grafana reads: `python -m dashboards.build`, or `make boards`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from . import overview, pool

HERE = Path(__file__).parent


def boards() -> Iterator[tuple[Path, str]]:
    """Each board's file and what is to be in it."""
    encoder = JSONEncoder(indent=2, ensure_ascii=False)
    for made in (overview, pool):
        yield HERE / f"{made.__name__.rpartition('.')[2]}.json", encoder.encode(made.make().build()) + "\n"


def main() -> None:
    """Write all boards."""
    for path, content in boards():
        path.write_text(content, encoding="utf-8")
        print(f"{path.name}: {len(content):,} characters")


if __name__ == "__main__":
    main()
