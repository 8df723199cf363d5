"""The command line of `top`: its arguments and its refresh loop."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .endpoint import DebugPageError, EndpointError
from .page import page_url
from .statements import SORTS, read

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["main"]

_PROGRAM = "python -m aiosqlitepool top"
_SHORTEST, _LONGEST = 0.1, 3600.0  # seconds between two readings
_LIMIT = 20  # statements of a pool


def main(argv: Sequence[str] | None = None) -> int:
    """Show the pools until Ctrl-C.

    Return 0, 1 if the first reading fails, 2 for a wrong argument or a missing extra.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    for name in ("sort", "limit"):
        if getattr(options, name) is not None and not options.statements:
            parser.error(f"argument --{name}: only with --statements")
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
        description="Show the state of a program's pools, from its /metrics endpoint or its debug page. The debug page "
        "also has the holders of connections and, with --statements, the statements that ran.",
        epilog="The line 'last' covers the time between two readings, the line 'total' the time since the program "
        "started, or since its debug page was mounted. The percentiles of a debug page are those of the last minute. "
        "Statements are counted since the pool was made, or its statements were reset.",
    )
    add = parser.add_argument
    add(
        "url",
        metavar="URL",
        help="the metrics: http://127.0.0.1:8000/metrics, or 127.0.0.1:8000 for short; or the debug page: "
        "http://127.0.0.1:8000/debug/pool/",
    )
    add("--interval", type=_seconds, default=2.0, metavar="S", help="seconds between readings (default: %(default)s)")
    add(
        "--once", action="store_true", help="print the result once and exit; rates need two readings, an interval apart"
    )
    add("--statements", action="store_true", help="show which statements take the time")
    add("--sort", choices=SORTS, help="by which figure the statements are sorted (default: total)")
    add("--limit", type=_count, metavar="N", help=f"how many statements of a pool are shown (default: {_LIMIT})")
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return int(text)


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


class _View(NamedTuple):
    """What to read repeatedly, and how to show it.

    `board` gets the last two readings, of which the older may be `None`, and the error of the last attempt.
    `readings` is how many it takes until there is something to show for `--once`.
    """

    read: Callable[[], Any]
    board: Callable[[Any, Any, str | None], RenderableType]
    readings: int


def _pools(options: argparse.Namespace) -> _View:
    from .board import Board
    from .figures import figures
    from .scrape import full_url, scrape

    url = full_url(options.url)
    return _View(lambda: scrape(url), lambda now, before, error: Board(figures(now, before), url, error), 2)


def _page(options: argparse.Namespace) -> _View:
    from .board import Board
    from .page_figures import read_page

    url = page_url(options.url)
    return _View(lambda: read_page(url), lambda now, before, error: Board(now.figures(before), url, error), 2)


def _statements(options: argparse.Namespace) -> _View:
    from .statements_board import StatementsBoard

    url, sort, limit = page_url(options.url), options.sort or "total", options.limit or _LIMIT
    return _View(lambda: read(url), lambda now, _, error: StatementsBoard(now, url, sort, limit, error), 1)


def _watch(options: argparse.Namespace) -> int:
    from .board import showing

    try:
        view = _statements(options) if options.statements else _pools(options)
    except ValueError as error:
        return _end(f"argument URL: {error}", 2)
    readings = _Readings(view.read)
    try:
        try:
            readings.take()
        except DebugPageError:
            view = _page(options)
            readings = _Readings(view.read)
            readings.take()
        if options.once and view.readings > 1:
            time.sleep(options.interval)
            readings.take()
    except EndpointError as error:
        return _end(str(error), 1)
    with showing(on_screen=not options.once) as show:
        while True:
            show(view.board(readings.now, readings.before, readings.error))
            if options.once:
                return 0
            time.sleep(options.interval)
            readings.try_take()


class _Readings:
    """The last two successful readings, and the error of the last reading if it failed."""

    now: Any
    before: Any = None
    error: str | None = None

    def __init__(self, read: Callable[[], Any]) -> None:
        self._read = read

    def take(self) -> None:
        """Read the endpoint. Raises what the reading raises."""
        found = self._read()
        self.before = getattr(self, "now", None)
        self.now, self.error = found, None

    def try_take(self) -> None:
        """Read the endpoint. If that fails, set `error` and keep the last readings."""
        try:
            self.take()
        except EndpointError as error:
            self.error = f"no figures for {time.monotonic() - self.now.at:.0f} s: {error}"
