"""The command line of `top`: its arguments and its refresh loop."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .scrape import Scrape

__all__ = ["main"]

_PROGRAM = "python -m aiosqlitepool top"
_SHORTEST, _LONGEST = 0.1, 3600.0  # seconds between two scrapes


def main(argv: Sequence[str] | None = None) -> int:
    """Show the pools until Ctrl-C. Return 0, 1 if the first scrape fails, 2 for a wrong argument or a missing extra."""
    options = _parser().parse_args(argv)
    try:
        return _watch(options)
    except KeyboardInterrupt:
        return 0  # Ctrl-C is how users end the program
    except ModuleNotFoundError as error:
        return _end(f"{error.name} is missing; install it with: pip install 'aiosqlitepool[top]'", 2)


def _end(message: str, code: int) -> int:
    print(f"{_PROGRAM}: error: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Show the state of a program's pools, from its /metrics endpoint.",
        epilog="The first line of a pool covers the time between two scrapes, the second the time since the program "
        "started. Failures are connections that could not be opened or failed a health check.",
    )
    add = parser.add_argument
    add("url", metavar="URL", help="the endpoint: http://127.0.0.1:8000/metrics, or 127.0.0.1:8000 for short")
    add("--interval", type=_seconds, default=2.0, metavar="S", help="seconds between scrapes (default: %(default)s)")
    add("--once", action="store_true", help="scrape twice, one interval apart, print the result and exit")
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not _SHORTEST <= seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(
            f"must be a number of seconds from {_SHORTEST:g} to {_LONGEST:g}, not {text!r}"
        )
    return seconds


def _watch(options: argparse.Namespace) -> int:
    from .board import board, showing
    from .figures import figures
    from .scrape import ScrapeError, full_url, scrape

    try:
        url = full_url(options.url)
    except ValueError as error:
        return _end(f"argument URL: {error}", 2)
    scrapes = _Scrapes(lambda: scrape(url), ScrapeError)
    try:
        scrapes.take()
        if options.once:
            time.sleep(options.interval)
            scrapes.take()
    except ScrapeError as error:
        return _end(str(error), 1)
    with showing(on_screen=not options.once) as show:
        while True:
            show(board(figures(scrapes.now, scrapes.before), url, scrapes.error))
            if options.once:
                return 0
            time.sleep(options.interval)
            scrapes.try_take()


class _Scrapes:
    """The last two successful scrapes, and the error of the last scrape if it failed."""

    now: Scrape
    before: Scrape | None = None
    error: str | None = None

    def __init__(self, scrape: Callable[[], Scrape], failure: type[Exception]) -> None:
        self._scrape, self._failure = scrape, failure

    def take(self) -> None:
        """Scrape the endpoint. Raises what the scrape raises."""
        found = self._scrape()
        self.before = getattr(self, "now", None)
        self.now, self.error = found, None

    def try_take(self) -> None:
        """Scrape the endpoint. If that fails, set `error` and keep the last figures."""
        try:
            self.take()
        except self._failure as error:
            self.error = f"no figures for {time.monotonic() - self.now.at:.0f} s: {error}"
