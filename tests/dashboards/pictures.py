"""`make pictures`: run three programs for most of a day of theirs under a real Prometheus, and plot the boards of it.

Takes six minutes; the pictures go to `build/pictures`. Those of the documentation are drawn by `make boards-real`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path

from dashboards.render.__main__ import main as render

from .servers import ROOT, driver, installed, prometheus

FLEET = {
    "api-1": ("--share", "1.0"),
    "api-2": ("--share", "0.75", "--through", "opentelemetry"),
    "api-3": ("--share", "1.3"),
}
# Rates over seven scrapes: what a board of an hour has, at ten times the speed.
SCRAPE, RATE = "2s", 14
# When in the day the pictures are taken: in the evening rush.
HOUR = 0.74


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=6.0, help="how long, until the rush, a day has been (6)")
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "pictures")
    options = parser.parse_args()
    if not installed():
        print("This needs a Prometheus: apt-get install prometheus", file=sys.stderr)
        return 1
    seconds = options.minutes * 60
    with contextlib.ExitStack() as running:
        day = ("--day", str(seconds / HOUR))
        ports = {name: running.enter_context(driver(*day, *traffic)) for name, traffic in FLEET.items()}
        server = running.enter_context(prometheus(ports, SCRAPE))
        _sleep(seconds)
        arguments = [server.url, str(options.directory), f"--minutes={options.minutes}", f"--rate={RATE}"]
        return render([*arguments, "--pool=orders.db/read"])


def _sleep(seconds: float) -> None:
    """Let the day pass, and say how much of it is left."""
    for left in range(round(seconds), 0, -15):
        print(f"{left:4d} s until the pictures are taken", flush=True)
        time.sleep(min(15, left))


if __name__ == "__main__":
    sys.exit(main())
