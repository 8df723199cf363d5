"""Render figures in a terminal: a bar and a small table for each pool."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ...debug.words import duration
from .endpoint import printable
from .figures import Percentile, PoolFigures, Span

__all__ = ["board", "head", "showing"]

Show = Callable[[RenderableType], object]

_WIDTH = 100  # columns, if the output is not a terminal
_BAR = 24  # columns
_FULL, _EMPTY = "█", "░"


@contextmanager
def showing(on_screen: bool) -> Iterator[Show]:
    """Yield a function that shows a board: in place if `on_screen` is true and the output is a terminal, else below."""
    terminal = sys.stdout.isatty()
    # Control codes go only to a terminal, also if FORCE_COLOR or the like is set.
    console = Console(
        force_terminal=terminal, width=None if terminal else _WIDTH, highlight=False, markup=False, emoji=False
    )

    def show(shown: RenderableType) -> None:
        console.print(shown)
        console.file.flush()  # else a pipe would deliver many boards at once, late

    if on_screen and console.is_terminal and console.is_interactive:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            yield lambda shown: live.update(shown, refresh=True)
    else:
        yield show


def board(pools: Iterable[PoolFigures], url: str, error: str | None = None) -> RenderableType:
    """Return all pools, below the URL and the error of the last scrape."""
    parts: list[RenderableType] = [*head(url, error)]
    for pool in pools:
        parts += [Text(), _levels(pool), _spans(pool)]
    return Group(*parts)


def head(url: str, error: str | None) -> list[Text]:
    """Return the first lines of a board: the URL, and why there is nothing newer than what is below."""
    first = Text.assemble(("aiosqlitepool top", "bold"), "  ", (url, "dim"))
    return [first] if error is None else [first, Text(error, style="bold red")]


def _levels(pool: PoolFigures) -> Text:
    full = pool.used >= pool.max_size
    cells = round(_BAR * min(1.0, pool.used / pool.max_size)) if pool.max_size else 0
    queue = f"{pool.waiting:,} waiting, oldest {duration(pool.oldest_waiter)}" if pool.waiting else "no waiters"
    held = f"  longest in use {duration(pool.oldest_checkout)}" if pool.oldest_checkout else ""
    return Text.assemble(
        (printable(pool.pool), "bold"),
        "  ",
        (queue, "bold yellow" if pool.waiting else "dim"),
        "\n",
        (_FULL * cells, "red" if full and pool.waiting else "blue"),
        (_EMPTY * (_BAR - cells), "dim"),
        f"  {pool.used} used, {pool.idle} idle of {pool.max_size}",
        (held, "dim"),
    )


_HEADINGS = (
    "acq.\nidle",
    "acq.\nnew",
    "acq.\nqueued",
    "wait\nP50",
    "wait\nP99",
    "hold\nP99",
    "time-\nouts",
    "\ncreates",
    "fail-\nures",
    "roll-\nbacks",
)


def _spans(pool: PoolFigures) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", padding=0, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    if pool.recent is not None and pool.recent.seconds is not None:
        table.add_row(f"last {pool.recent.seconds:.1f} s", *_cells(pool.recent))
    table.add_row("total", *_cells(pool.total), style="dim")
    return table


def _cells(span: Span) -> Sequence[Text]:
    def count(number: float, style: str = "") -> Text:
        shown = f"{number:,.0f}" if span.seconds is None else _rate(number / span.seconds)
        return Text(shown, style=style if number else "")

    return [
        *(count(number) for number in (span.idle, span.new)),
        count(span.queued, "yellow"),
        *(Text(_time(time)) for time in (span.wait_p50, span.wait_p99, span.hold_p99)),
        count(span.timeouts, "bold red"),
        count(span.creates),
        count(span.failures, "bold red"),
        count(span.rollbacks, "yellow"),
    ]


def _rate(rate: float) -> str:
    if rate == 0:
        return "0/s"
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s" if rate >= 0.05 else "<0.1/s"


def _time(time: Percentile | None) -> str:
    if time is None:
        return "-"
    return f"{'>' if time.beyond else ''}{duration(time.seconds)}"
