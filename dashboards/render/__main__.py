"""`python -m dashboards.render PROMETHEUS-URL DIRECTORY`: a picture of each board."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .answers import Window
from .ask import Prometheus, PrometheusError
from .board import board_files, read, variables
from .page import render

_STEPS = 180


def main(arguments: list[str] | None = None) -> int:
    """Plot the boards; returns an exit status."""
    parser = argparse.ArgumentParser(prog="python -m dashboards.render", description=__doc__)
    parser.add_argument("url", help="where Prometheus is, for instance http://127.0.0.1:9090")
    parser.add_argument("directory", type=Path, help="where the pictures go")
    parser.add_argument("--minutes", type=float, default=60.0, help="how far to look back (60)")
    parser.add_argument("--end", type=float, default=None, help="until when, in seconds since the epoch (now)")
    parser.add_argument("--rate", type=int, default=60, help="seconds that a rate is over: four scrapes or more (60)")
    parser.add_argument("--pool", default=None, help="the pool to show in depth (all)")
    options = parser.parse_args(arguments)
    options.directory.mkdir(parents=True, exist_ok=True)
    try:
        for path in board_files():
            print(draw(path, options))
    except (OSError, PrometheusError) as error:
        print(f"Prometheus at {options.url} gave no answer: {error}", file=sys.stderr)
        return 1
    return 0


def draw(path: Path, options: argparse.Namespace) -> Path:
    """Plot the board of this file; returns the picture's path."""
    span = options.minutes * 60
    step = max(1, round(span / _STEPS))
    end = (options.end or time.time()) // step * step
    pool = options.pool if path.stem == "pool" else None
    values = variables(rate_interval=options.rate, interval=step, span=round(span), **({"pool": pool} if pool else {}))
    chosen = {"datasource": "Prometheus", "job": "All", "instance": "All", "pool": pool or "All"}
    picture: Path = options.directory / f"{path.stem}.png"
    render(read(path), Prometheus(options.url), Window(end - span // step * step, end, step, values), chosen, picture)
    return picture


if __name__ == "__main__":
    sys.exit(main())
