"""What the demo shows: a live board on a terminal, plain lines elsewhere, and the tables at the end.

The only module that knows rich. Nothing here measures anything.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from heapq import nlargest

from rich import box
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars
from rich.progress_bar import ProgressBar
from rich.table import Table

from ...events import AcquireSlow
from .data import Progress
from .load import Run, Summary
from .orders import PATIENCE, Writing

__all__ = [
    "building",
    "console_for_stdout",
    "print_comparison",
    "print_events",
    "print_slowest",
    "print_writing",
    "print_writings",
    "watching",
]

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


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # Nobody reads any more (`demo | head`): as good as Ctrl-C, which ends it with everything tidied up.
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        signal.raise_signal(signal.SIGINT)


def console_for_stdout() -> Console:
    """A console that sends control codes to a terminal and to nothing else, whatever the environment asks for."""
    terminal = sys.stdout.isatty()
    width = None if terminal else _WIDEST
    return _Console(force_terminal=terminal, width=width, highlight=False, markup=False, emoji=False)


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
        async with _repeating(_lines(console, runs)):
            yield
        return
    # No thread of rich's own: the board is drawn between requests, at the same cost to both ways of running.
    with Live(console=console, auto_refresh=False) as live:
        async with _repeating(lambda: live.update(_board(console, runs), refresh=True)):
            yield


@asynccontextmanager
async def _repeating(show: Callable[[], object]) -> AsyncIterator[None]:
    async def look() -> None:
        while True:
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


def _lines(console: Console, runs: Sequence[Run]) -> Callable[[], None]:
    untold, told_at = list(runs), time.monotonic()

    def tell(run: Run) -> None:
        nonlocal told_at
        told_at = time.monotonic()
        console.print(_line(run), soft_wrap=True)

    def show() -> None:
        while untold and untold[0].ended is not None:
            tell(untold.pop(0))
        if untold and untold[0].under_way and time.monotonic() - told_at >= _LINE:
            tell(untold[0])

    return show


def _line(run: Run) -> str:
    done, total = len(run.latencies), len(run.workload.keys)
    line = f"{run.title}: {done:,} of {total:,} {run.workload.unit}, {run.rate:,.0f} per second"
    if run.watch is None:
        return line
    used, idle, waiting, wait = _levels(run)
    return f"{line}; {used} used, {idle} idle, {waiting} waiting, P99 wait {wait}"


def _levels(run: Run) -> tuple[str, str, str, str]:
    watch = run.watch
    if watch is None or watch.stats is None:
        return "-", "-", "-", "-"
    stats = watch.stats
    return str(stats.used), str(stats.idle), str(stats.waiting), f"{1000 * watch.p99_wait():.1f} ms"


def _board(console: Console, runs: Sequence[Run]) -> Table:
    board = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, width=min(_WIDEST, console.width), header_style="dim")
    board.add_column("")
    board.add_column("", ratio=1, min_width=4)
    for heading in ("done", "per s", "used", "idle", "waiting", "P99 wait"):
        board.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        done, total = len(run.latencies), len(run.workload.keys)
        bar = ProgressBar(total=total, completed=done)
        style = "bold" if run.under_way else "" if run.ended is not None else "dim"
        board.add_row(run.title, bar, f"{done:,}", f"{run.rate:,.0f}", *_levels(run), style=style)
    return board


# ------------------------------------------------------------------------------------------------- when it is over


def print_comparison(console: Console, without: Run, pooled: Run) -> None:
    """Print what one workload came to without and with the pool, and by how much the pool improved it."""
    workload, before, after = without.workload, without.summary(), pooled.summary()
    table = _table(f"{workload.title}: {len(workload.keys):,} {workload.unit}, {workload.workers:,} workers")
    table.add_column("")
    for heading in ("without pool", "with pool", "improvement"):
        table.add_column(heading, justify="right", no_wrap=True)
    faster = after.rate / before.rate
    table.add_row(f"{workload.unit} per second", f"{before.rate:,.1f}", f"{after.rate:,.1f}", f"{faster:.1f} x")
    for name, latency in _LATENCIES.items():
        old, new = latency(before), latency(after)
        table.add_row(name, f"{old:,.2f}", f"{new:,.2f}", f"{old / new:.1f} x")
    console.print(table)


def print_writing(console: Console, writing: Writing) -> None:
    """Print that all orders were written in one way."""
    done = (
        f"{writing.orders - writing.failed:,} of {writing.orders:,} written, {writing.summary().rate:,.0f} per second"
    )
    console.print(f"Orders, {writing.title}: {done}", soft_wrap=True)


def print_writings(console: Console, writings: Sequence[Writing], writers: int) -> None:
    """Print what writing came to, in each way."""
    summaries = [writing.summary() for writing in writings]
    table = _table(
        f"Orders: {writings[0].orders:,} transactions, {writers:,} writers that wait {PATIENCE:g} s for a lock"
    )
    table.add_column("")
    for writing in writings:
        table.add_column(writing.title, justify="right", no_wrap=True)
    table.add_row("orders per second", *(f"{summary.rate:,.0f}" for summary in summaries))
    for name, latency in _LATENCIES.items():
        table.add_row(name, *(f"{latency(summary):,.2f}" for summary in summaries))
    table.add_row("longest, ms", *(f"{writing.longest:,.2f}" for writing in writings))
    table.add_row("database is locked", *(f"{writing.failed:,}" for writing in writings))
    console.print(table)


def print_events(console: Console, runs: Sequence[Run]) -> None:
    """Print how often the pool of each run told which event, in the order of their first telling."""
    pooled = [(run, run.watch.counts) for run in runs if run.watch is not None]
    table = _table("What the pools did, warm-up included")
    table.add_column("event")
    for run, _ in pooled:
        table.add_column(run.workload.title, justify="right")
    for name in dict.fromkeys(name for _, counts in pooled for name in counts):
        table.add_row(name, *(f"{counts[name]:,}" for _, counts in pooled))
    console.print(table)


def print_slowest(console: Console, runs: Sequence[Run]) -> None:
    """Print the acquisitions that waited longest, and for whom."""
    acquired = [event for run in runs if run.watch is not None for event in run.watch.slowest]
    if not acquired:
        console.print("No acquisition took 1 ms or longer.")
        return
    table = _table("The slowest acquisitions")
    table.add_column("waited, ms", justify="right")
    table.add_column("for what")
    table.add_column("in front", justify="right")
    table.add_column("waited for (ms held until then)")
    for event in nlargest(_SLOWEST, acquired, key=lambda each: each.wait_time):
        table.add_row(f"{1000 * event.wait_time:.2f}", event.label, str(event.pending), _waited_for(event))
    console.print(table)


def _waited_for(event: AcquireSlow) -> str:
    if event.path != "queued":
        return "a new connection" if event.path == "new" else "a health check"
    named = [f"{holder.label} ({1000 * holder.held:.1f})" for holder in event.holders[:_HOLDERS]]
    rest = len(event.holders) - len(named)
    # None is named if every connection was on its way from one holder to the next at that moment.
    return ", ".join([*named, f"{rest} more"] if rest else named) or "-"


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", min_width=60)
