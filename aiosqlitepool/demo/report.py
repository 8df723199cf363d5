"""What the demo shows: a live board on a terminal, plain lines elsewhere, and the tables at the end.

The only module that knows rich. Nothing here measures anything.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars

from .data import Progress
from .load import Run, Summary

__all__ = ["building", "console_for_stdout", "print_comparison", "print_events", "print_slowest", "watching"]

_FRAME = 0.125  # seconds between two looks at a run
_LINE = 1.0  # seconds between two plain lines
_WIDEST = 100  # columns
_SLOWEST = 5  # acquisitions
_HOLDERS = 2  # named per acquisition

_LATENCIES: dict[str, Callable[[Summary], float]] = {
    "average, ms": lambda summary: summary.average,
    "median, ms": lambda summary: summary.median,
    "P90, ms": lambda summary: summary.p90,
    "P99, ms": lambda summary: summary.p99,
}


def console_for_stdout() -> Console:
    """A console that sends control codes to a terminal and to nothing else, whatever the environment asks for."""
    terminal = sys.stdout.isatty()
    width = None if terminal else _WIDEST
    return Console(force_terminal=terminal, width=width, highlight=False, markup=False, emoji=False)


def _is_lively(console: Console) -> bool:
    return console.is_terminal and console.is_interactive


# ------------------------------------------------------------------------------------------------- while it runs


@contextmanager
def building(console: Console) -> Iterator[Progress]:
    """Show how far a database is built; gives the function to tell it."""
    if not _is_lively(console):
        yield _building_in_lines(console)
        return
    columns = (TextColumn("Building the database: {task.description}"), BarColumn(), MofNCompleteColumn())
    with ProgressBars(*columns, TextColumn("rows"), TimeRemainingColumn(), console=console, transient=True) as bars:
        task = bars.add_task("users", total=None)
        yield lambda table, done, total: bars.update(task, description=table, completed=done, total=total)


def _building_in_lines(console: Console) -> Progress:
    told = time.monotonic()

    def tell(table: str, done: int, total: int) -> None:
        nonlocal told
        if done == total or time.monotonic() - told >= _LINE:
            told = time.monotonic()
            console.print(f"Building the database: {table}, {done:,} of {total:,} rows")

    return tell


@asynccontextmanager
async def watching(console: Console, runs: Sequence[Run]) -> AsyncIterator[None]:
    """Show all runs while they are under way, one after the other."""
    if not _is_lively(console):
        async with _repeating(_lines_of(console, runs)):
            yield
        return
    # No thread of rich's own: the board is drawn between the requests, and both ways of running bear the same cost.
    with Live(console=console, auto_refresh=False) as live:
        async with _repeating(lambda: live.update(_board(console, runs), refresh=True), runs):
            yield


@asynccontextmanager
async def _repeating(show: Callable[[], object], runs: Sequence[Run]) -> AsyncIterator[None]:
    async def look() -> None:
        while True:
            for run in runs:
                if run.watch is not None and run.under_way:
                    run.watch.sample()
            show()
            await asyncio.sleep(_FRAME)

    looking = asyncio.create_task(look(), name="demo: view")
    try:
        yield
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
        show()
