"""`make boards-real`: draw the boards with Grafana's own components, from a real Prometheus.

Runs three programs for most of a day of theirs, as `make pictures` does, or asks a Prometheus that is there. The
pictures go to `docs/images`. With `--checks`, only checks in half a minute what needs no server: names of pools in
queries, and exemplars.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dashboards.render.answers import Window
from dashboards.render.ask import Prometheus
from dashboards.render.board import board_files, variables

from ..pictures import FLEET, HOUR, RATE, SCRAPE
from ..servers import ROOT, driver, installed, prometheus
from .draw import draw
from .install import bundle, check

# The pool that is shown in depth.
POOL = "orders.db/read"
STEPS = 180


def main() -> int:
    """Check the boards, and draw them. Returns an exit status."""
    options = _parser().parse_args()
    bundle()
    check(*board_files())
    if options.checks:
        return 0
    if options.url is None and not installed():
        print("This needs a Prometheus: apt-get install prometheus", file=sys.stderr)
        return 1
    options.directory.mkdir(parents=True, exist_ok=True)
    with _server(options) as server:
        failures = [failure for path in board_files() for failure in _drawn(path, server, options)]
    print(*failures, sep="\n", file=sys.stderr)
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.dashboards.real", description=__doc__)
    parser.add_argument("--checks", action="store_true", help="check the boards, and draw nothing")
    parser.add_argument(
        "--minutes", type=float, default=6.0, help="how long a day has been, or how far to look back (6)"
    )
    parser.add_argument("--url", help="a Prometheus that is there already")
    parser.add_argument("--rate", type=int, default=RATE, help=f"seconds that a rate is over ({RATE})")
    parser.add_argument("--directory", type=Path, default=ROOT / "docs" / "images")
    return parser


@contextlib.contextmanager
def _server(options: argparse.Namespace) -> Iterator[Prometheus]:
    if options.url is not None:
        yield Prometheus(options.url)
        return
    seconds = options.minutes * 60
    with contextlib.ExitStack() as running:
        day = ("--day", str(seconds / HOUR))
        ports = {name: running.enter_context(driver(*day, *traffic)) for name, traffic in FLEET.items()}
        server = running.enter_context(prometheus(ports, SCRAPE))
        print(f"{seconds:.0f} s of traffic until the pictures are taken", flush=True)
        time.sleep(seconds)
        yield server


def _drawn(path: Path, server: Prometheus, options: argparse.Namespace) -> list[str]:
    span = round(options.minutes * 60)
    step = max(1, round(span / STEPS))
    end = time.time() // step * step
    pool = POOL if path.stem == "pool" else None
    values = variables(rate_interval=options.rate, interval=step, span=span, **({"pool": pool} if pool else {}))
    picture = options.directory / f"{path.stem}.png"
    failures = draw(path, server, Window(end - span // step * step, end, step, values), pool, picture)
    print(picture)
    return [f"{path.name}: {failure}" for failure in failures]


if __name__ == "__main__":
    sys.exit(main())
