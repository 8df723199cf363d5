"""The command line of `top`: its arguments, and when to look again."""

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
_SHORTEST, _LONGEST = 0.1, 3600.0  # seconds between two looks


def main(argv: Sequence[str] | None = None) -> int:
    """Show what pools do, until Ctrl-C; returns 0, 1 if the endpoint could not be read at first, 2 for a wrong call."""
    options = _parser().parse_args(argv)
    try:
        return _watch(options)
    except KeyboardInterrupt:
        return 0  # the proper way to end
    except ModuleNotFoundError as error:
        return _end(f"{error.name} is missing; install it with: pip install 'aiosqlitepool[top]'", 2)


def _end(message: str, code: int) -> int:
    print(f"{_PROGRAM}: error: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Show what the pools of a program are doing, from its /metrics endpoint.",
        epilog="Rates and percentiles are of the time between two looks, and below them of all the time since the "
        "program began. Failures are connections that could not be opened, or failed a check.",
    )
    add = parser.add_argument
    add("url", metavar="URL", help="where the metrics are: http://127.0.0.1:8000/metrics, or just 127.0.0.1:8000")
    add("--interval", type=_seconds, default=2.0, metavar="S", help="seconds from look to look (default: %(default)s)")
    add("--once", action="store_true", help="look twice, one interval apart, print that, and end")
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not _SHORTEST <= seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"must be seconds from {_SHORTEST:g} to {_LONGEST:g}, not {text!r}")
    return seconds


def _watch(options: argparse.Namespace) -> int:
    from .board import board, showing
    from .figures import figures
    from .scrape import ScrapeError, full_url, scrape

    try:
        url = full_url(options.url)
    except ValueError as error:
        return _end(f"argument URL: {error}", 2)
    looks = _Looks(lambda: scrape(url), ScrapeError)
    try:
        looks.first()
        if options.once:
            time.sleep(options.interval)
            looks.first()
    except ScrapeError as error:
        return _end(str(error), 1)
    with showing(on_screen=not options.once) as show:
        while True:
            show(board(figures(looks.now, looks.before), url, looks.trouble))
            if options.once:
                return 0
            time.sleep(options.interval)
            looks.again()


class _Looks:
    """The last two looks that succeeded, and what is wrong since."""

    now: Scrape
    before: Scrape | None = None
    trouble: str | None = None

    def __init__(self, look: Callable[[], Scrape], failure: type[Exception]) -> None:
        self._look, self._failure = look, failure

    def first(self) -> None:
        """Look; raises what the look raises."""
        found = self._look()
        self.before = getattr(self, "now", None)
        self.now, self.trouble = found, None

    def again(self) -> None:
        """Look; what goes wrong is trouble, and the last figures stay."""
        try:
            self.first()
        except self._failure as error:
            self.trouble = f"no figures for {time.monotonic() - self.now.at:.0f} s: {error}"
