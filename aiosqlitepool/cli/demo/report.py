"""The demo's output: a live board on a terminal, plain lines elsewhere, and tables at the end.

The only module of the demo that imports rich.
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
from .orders import BUSY_TIMEOUT, Writing

__all__ = [
    "building",
    "conclusion",
    "console_for_stdout",
    "print_results",
    "print_writing",
    "watching",
]

_FRAME = 0.125  # seconds between two updates of the board
_LINE = 1.0  # seconds between two lines
_WIDEST = 100  # columns
_SLOWEST = 5  # acquires
_HOLDERS = 2  # holders named per acquire

_LATENCIES: dict[str, Callable[[Summary], float]] = {
    "average, ms": lambda summary: summary.average,
    "median, ms": lambda summary: summary.median,
    "P90, ms": lambda summary: summary.p90,
    "P99, ms": lambda summary: summary.p99,
}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # The reader has exited (`demo | head`). SIGINT ends the demo and removes its files.
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        signal.raise_signal(signal.SIGINT)


def console_for_stdout() -> Console:
    """Return a console that sends control codes only to a terminal, also if FORCE_COLOR or the like is set."""
    terminal = sys.stdout.isatty()
    width = None if terminal else _WIDEST
    return _Console(force_terminal=terminal, width=width, highlight=False, markup=False, emoji=False)


def _is_lively(console: Console) -> bool:
    return console.is_terminal and console.is_interactive


# ------------------------------------------------------------------------------------------------- progress


@contextmanager
def building(console: Console) -> Iterator[Progress]:
    """Show the progress of a build. Yield the progress function."""
    if not _is_lively(console):
        yield _building_in_lines(console)
        return
    columns = (TextColumn("Building the database: {task.description}"), BarColumn(), MofNCompleteColumn())
    with ProgressBars(*columns, TextColumn("rows"), TimeRemainingColumn(), console=console, transient=True) as bars:
        task = bars.add_task("users", total=None)
        yield lambda table, done, total: bars.update(task, description=table, completed=done, total=total)


def _building_in_lines(console: Console) -> Progress:
    printed_at = time.monotonic()

    def show(table: str, done: int, total: int) -> None:
        nonlocal printed_at
        if done == total or time.monotonic() - printed_at >= _LINE:
            printed_at = time.monotonic()
            console.print(f"Building the database: {table}, {done:,} of {total:,} rows")

    return show


@asynccontextmanager
async def watching(console: Console, runs: Sequence[Run]) -> AsyncIterator[None]:
    """Show the progress of all runs inside the block."""
    if not _is_lively(console):
        async with _repeating(_lines(console, runs)):
            yield
        return
    # auto_refresh=False: no thread of rich. The board is drawn in the event loop, at the same cost for all runs.
    with Live(console=console, auto_refresh=False) as live:
        async with _repeating(lambda: live.update(_board(console, runs), refresh=True)):
            yield


@asynccontextmanager
async def _repeating(show: Callable[[], object]) -> AsyncIterator[None]:
    async def repeat() -> None:
        while True:
            show()
            await asyncio.sleep(_FRAME)

    task = asyncio.create_task(repeat(), name="demo: view")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        show()


def _lines(console: Console, runs: Sequence[Run]) -> Callable[[], None]:
    unfinished, printed_at = list(runs), time.monotonic()

    def print_line(run: Run) -> None:
        nonlocal printed_at
        printed_at = time.monotonic()
        console.print(_line(run), soft_wrap=True)

    def show() -> None:
        while unfinished and unfinished[0].ended is not None:
            print_line(unfinished.pop(0))
        if unfinished and unfinished[0].under_way and time.monotonic() - printed_at >= _LINE:
            print_line(unfinished[0])

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


# ------------------------------------------------------------------------------------------------- results


def print_results(console: Console, runs: Sequence[Run], writings: Sequence[Writing], writers: int) -> None:
    """Print all tables. Of `runs`, each without a pool is followed by the same with one."""
    for without, pooled in _pairs(runs):
        _print_comparison(console, without, pooled)
    _print_writings(console, writings, writers)
    _print_events(console, runs)
    _print_slowest(console, runs)


def conclusion(runs: Sequence[Run], writings: Sequence[Writing]) -> str:
    """Return what was seen, in one sentence, from the measured figures."""
    served = [
        f"{pooled.summary().rate / without.summary().rate:.1f} times the {without.workload.title.lower()}"
        for without, pooled in _pairs(runs)
    ]
    competing, queued = writings[0], writings[-1]
    return (
        f"In short: the pool served {' and '.join(served)} per second; {queued.title} wrote "
        f"{queued.summary().rate:,.0f} orders per second instead of {competing.summary().rate:,.0f}, "
        f"the slowest in {queued.longest:,.0f} ms instead of {competing.longest:,.0f} ms."
    )


def _pairs(runs: Sequence[Run]) -> Iterator[tuple[Run, Run]]:
    return zip(runs[::2], runs[1::2], strict=True)


def _print_comparison(console: Console, without: Run, pooled: Run) -> None:
    """Print the results of one workload without and with the pool, and the ratio of the two."""
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
    """Print one line with the results of one way."""
    done = (
        f"{writing.orders - writing.failed:,} of {writing.orders:,} written, {writing.summary().rate:,.0f} per second"
    )
    console.print(f"Orders, {writing.title}: {done}", soft_wrap=True)


def _print_writings(console: Console, writings: Sequence[Writing], writers: int) -> None:
    """Print a table with the results of all ways."""
    summaries = [writing.summary() for writing in writings]
    table = _table(f"Orders: {writings[0].orders:,} transactions, {writers:,} writers, lock timeout {BUSY_TIMEOUT:g} s")
    table.add_column("")
    for writing in writings:
        table.add_column(writing.title, justify="right", no_wrap=True)
    table.add_row("orders per second", *(f"{summary.rate:,.0f}" for summary in summaries))
    for name, latency in _LATENCIES.items():
        table.add_row(name, *(f"{latency(summary):,.2f}" for summary in summaries))
    table.add_row("longest, ms", *(f"{writing.longest:,.2f}" for writing in writings))
    table.add_row("database is locked", *(f"{writing.failed:,}" for writing in writings))
    console.print(table)


def _print_events(console: Console, runs: Sequence[Run]) -> None:
    """Print how often the pool of each run emitted each event, in the order of first emission."""
    pooled = [(run, run.watch.counts) for run in runs if run.watch is not None]
    table = _table("Events of the pools, warm-up included")
    table.add_column("event")
    for run, _ in pooled:
        table.add_column(run.workload.title, justify="right")
    for name in dict.fromkeys(name for _, counts in pooled for name in counts):
        table.add_row(name, *(f"{counts[name]:,}" for _, counts in pooled))
    console.print(table)


def _print_slowest(console: Console, runs: Sequence[Run]) -> None:
    """Print the slowest acquires, and the holders that they waited for."""
    acquired = [event for run in runs if run.watch is not None for event in run.watch.slowest]
    if not acquired:
        console.print("No acquire took 1 ms or longer.")
        return
    table = _table("The slowest acquires")
    table.add_column("waited, ms", justify="right")
    table.add_column("label")
    table.add_column("ahead in queue", justify="right")
    table.add_column("waited for (ms in use by then)")
    for event in nlargest(_SLOWEST, acquired, key=lambda each: each.wait_time):
        table.add_row(f"{1000 * event.wait_time:.2f}", event.label, str(event.pending), _waited_for(event))
    console.print(table)


def _waited_for(event: AcquireSlow) -> str:
    if event.path != "queued":
        return "a new connection" if event.path == "new" else "a health check"
    named = [f"{holder.label} ({1000 * holder.held:.1f})" for holder in event.holders[:_HOLDERS]]
    rest = len(event.holders) - len(named)
    # There are no holders if every connection was between two holders when this caller joined the queue.
    return ", ".join([*named, f"{rest} more"] if rest else named) or "-"


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", min_width=60)
