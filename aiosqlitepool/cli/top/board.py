"""Render figures in a terminal: a bar and a small table for each pool."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ...debug.words import duration
from .endpoint import printable
from .figures import Held, Percentile, PoolFigures, Span

__all__ = ["Board", "head", "showing"]

Show = Callable[[RenderableType], object]

_WIDTH = 100  # columns, if the output is not a terminal
_BAR = 24, 12  # columns, in a wide and in a narrow terminal
_NARROW = 80  # columns of a terminal that count as narrow below
_WIDEST = 1000  # columns that no table needs
_WHO = 24  # columns of a holder's name, and of its time
_HOLDERS = 10  # the most that are shown of a pool
_FULL, _EMPTY = "█", "░"
_LEGEND = (
    "acq.: acquires by path, idle at once, new with an opened connection, queued after a wait. hold: time in use. "
    "failures: connections that could not be opened, or failed a check. rollbacks: releases with unfinished work."
)


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


@dataclass(frozen=True)
class Board:
    """All pools, below the URL and the error of the last reading, above a legend; for terminals from 60 columns on."""

    pools: Iterable[PoolFigures]
    url: str
    error: str | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the board for this width: in a narrow terminal, the figures of a pool stand below each other."""
        yield from head(self.url, self.error)
        for pool in self.pools:
            yield Text()
            yield _levels(pool, options.max_width < _NARROW)
            table = _spans(pool)
            wanted = Measurement.get(console, options.update(max_width=_WIDEST), table).maximum
            yield table if wanted <= options.max_width else _turned(pool)
            yield from _holders(pool.holders)
        yield Text()
        yield Text(_LEGEND, style="dim")


def head(url: str, error: str | None) -> list[Text]:
    """Return the first lines of a board: the URL, and why there is nothing newer than what is below."""
    first = Text.assemble(("aiosqlitepool top", "bold"), "  ", (url, "dim"))
    return [first] if error is None else [first, Text(error, style="bold red")]


def _levels(pool: PoolFigures, narrow: bool) -> Text:
    full, bar = pool.used >= pool.max_size, _BAR[narrow]
    cells = round(bar * min(1.0, pool.used / pool.max_size)) if pool.max_size else 0
    queue = f"{pool.waiting:,} waiting, oldest {duration(pool.oldest_waiter)}" if pool.waiting else "no waiters"
    held = f"  longest in use {duration(pool.oldest_checkout)}" if pool.oldest_checkout else ""
    return Text.assemble(
        (printable(pool.pool), "bold"),
        "  ",
        (queue, "bold yellow" if pool.waiting else "dim"),
        "\n",
        (_FULL * cells, "red" if full and pool.waiting else "blue"),
        (_EMPTY * (bar - cells), "dim"),
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
    for name, cells, style in _rows(pool):
        table.add_row(name, *cells, style=style)
    return table


def _turned(pool: PoolFigures) -> Table:
    """Return the same, with a row for each figure."""
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    rows = list(_rows(pool))
    for name, _, style in rows:
        table.add_column(name, justify="right", no_wrap=True, style=style)
    for heading, *cells in zip(_HEADINGS, *(cells for _, cells, _ in rows), strict=True):
        table.add_row(heading.replace("-\n", "").replace("\n", " ").strip(), *cells)
    return table


def _rows(pool: PoolFigures) -> Iterator[tuple[str, Sequence[Text], str]]:
    if pool.recent is not None and pool.recent.seconds is not None:
        yield f"last {pool.recent.seconds:.1f} s", _cells(pool.recent), ""
    yield "total", _cells(pool.total), "dim"


def _holders(holders: Sequence[Held]) -> Iterator[Text]:
    """Yield a line for each holder, the longest first. A suspected leak is red. The statement gets the rest of it."""
    shown = holders[:_HOLDERS]
    names = [printable(holder.who) for holder in shown]
    times = [f"{duration(holder.held)}{' suspected leak' if holder.suspected else ''}" for holder in shown]
    for holder, name, held in zip(shown, _columns(names), _columns(times), strict=True):
        style = "bold red" if holder.suspected else ""
        statement = (f"  {printable(holder.statement or '')}", "dim")
        about = Text.assemble(f"#{holder.connection}  ", (f"{name}  {held}", style), statement)
        about.no_wrap, about.overflow = True, "ellipsis"
        yield about
    if len(holders) > _HOLDERS:
        yield Text(f"and {len(holders) - _HOLDERS:,} more holders", style="dim")


def _columns(texts: Sequence[str]) -> list[str]:
    """Return the texts, all as wide as the widest, but no wider than `_WHO`."""
    width = min(_WHO, max(map(cell_len, texts), default=0))
    return [
        set_cell_size(text if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…", width)
        for text in texts
    ]


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
