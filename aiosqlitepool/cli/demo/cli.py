"""The demo's command line: its arguments and its steps.

Imports `report`, and so rich, only after the arguments have been checked.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .data import DEFAULT_SCALE, Database, DatabaseRefusedError, open_or_build, tidy
from .load import Run, Watch, Workload, execute, select_users, user_pages
from .orders import Writing, write_orders
from .telemetry import observing

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["main"]

_PROGRAM = "python -m aiosqlitepool demo"
_SMALLEST, _LARGEST = 0.0001, 10.0  # scales; below 0.0001, a post would need more likes than there are users
_CONTENDERS = (
    "Without pool, each request opens an aiosqlite connection and closes it at its end. "
    "With pool, all requests share {} connections, which stay open."
)
_INTERRUPTED = 130  # 128 + SIGINT, by the convention of shells


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo. Return its exit code: 0, 1 if the database fails, 2 for a wrong argument, 130 after Ctrl-C."""
    options = _parser().parse_args(argv)
    try:
        _demonstrate(options)
    except KeyboardInterrupt:
        return _end("interrupted", _INTERRUPTED)
    except DatabaseRefusedError as error:
        return _end(f"error: argument --path: cannot use {str(options.path)!r}: {error}", 2)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        return _end("error: rich is missing; install it with: pip install 'aiosqlitepool[demo]'", 2)
    except (OSError, sqlite3.Error) as error:
        hint = " (too many open files? use fewer --workers)" if "unable to open" in str(error) else ""
        return _end(f"error: {error}{hint}", 1)
    return 0


def _end(message: str, code: int) -> int:
    print(f"{_PROGRAM}: {message}", file=sys.stderr)
    return code


# -- arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Read a generated SQLite database without and with a pool, then write to another in three ways.",
        epilog="Scale 1.0: 1.2 million users, 120 thousand posts, 6 million comments and 12 million likes.",
    )
    add = parser.add_argument
    add("--scale", type=_scale, metavar="F", help=f"size of the database (default: {DEFAULT_SCALE})")
    add("--path", type=Path, metavar="FILE", help="use this demo database and keep it; built if missing")
    add("--keep", action="store_true", help="keep the temporary database and print its path")
    add("--pool-size", type=_few, default=5, metavar="N", help="maximum number of connections (default: %(default)s)")
    add("--requests", type=_many, default=1_000, metavar="N", help="user pages to serve (default: %(default)s)")
    add("--workers", type=_few, default=100, metavar="N", help="workers that serve user pages (default: %(default)s)")
    add("--selects", type=_many, default=10_000, metavar="N", help="rows to look up (default: %(default)s)")
    add("--select-workers", type=_few, default=5, metavar="N", help="workers that look up rows (default: %(default)s)")
    add("--orders", type=_many, default=2_000, metavar="N", help="orders to write (default: %(default)s)")
    add("--writers", type=_few, default=50, metavar="N", help="tasks that write orders (default: %(default)s)")
    add("--serve", action="store_true", help="afterwards, serve user pages and /metrics until Ctrl-C")
    add("--port", type=_port, default=0, metavar="N", help="port of /metrics (default: a free port)")
    return parser


def _scale(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not _SMALLEST <= scale <= _LARGEST:  # `not ... <=` also rejects NaN
        raise argparse.ArgumentTypeError(f"must be a number from {_SMALLEST} to {_LARGEST:g}, not {text!r}")
    return scale


def _few(text: str) -> int:
    return _count(text, 1_000)  # each can be an open connection, with a thread and file descriptors


def _many(text: str) -> int:
    return _count(text, 10_000_000)


def _port(text: str) -> int:
    return _count(text, 65_535)


def _count(text: str, most: int) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if not 1 <= count <= most:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {most}, not {text!r}")
    return count


# -- steps


def _demonstrate(options: argparse.Namespace) -> None:
    from . import report

    began = time.monotonic()
    console = report.console_for_stdout()
    show = partial(console.print, soft_wrap=True, highlight=False)
    with (
        _database(options, lambda path: _prepared(console, path, options.scale)) as database,
        observing(show, options.port),
    ):
        workloads = (
            user_pages(database.size, options.requests, options.workers),
            select_users(database.size, options.selects, options.select_workers),
        )
        runs = [Run(workload, watch) for workload in workloads for watch in (None, Watch())]
        show(_CONTENDERS.format(options.pool_size))
        try:
            asyncio.run(_execute_all(console, runs, database.path, options.pool_size))
        finally:
            tidy(database.path)
        writings = asyncio.run(_write_all(console, options.orders, options.writers))
        report.print_results(console, runs, writings, options.writers)
        if options.keep or options.path is not None:
            console.print(f"The database is kept: {database.path}", soft_wrap=True)
        if options.serve:
            show("Serving user pages until Ctrl-C")
            with suppress(KeyboardInterrupt):  # Ctrl-C is how users end it
                asyncio.run(_serve(workloads[0], database.path, options.pool_size))
            tidy(database.path)
    console.print(f"All done in {time.monotonic() - began:.1f} s.")
    show(report.conclusion(runs, writings))


async def _execute_all(console: Console, runs: Sequence[Run], path: Path, pool_size: int) -> None:
    from . import report

    async with report.watching(console, runs):
        for run in runs:
            await execute(run, path, pool_size)


async def _write_all(console: Console, orders: int, writers: int) -> list[Writing]:
    from . import report

    written = []
    async for writing in write_orders(orders, writers):
        report.print_writing(console, writing)
        written.append(writing)
    return written


async def _serve(workload: Workload, path: Path, pool_size: int) -> None:
    while True:
        await execute(Run(workload, Watch()), path, pool_size)


@contextmanager
def _database(options: argparse.Namespace, prepared: Callable[[Path], Database]) -> Iterator[Database]:
    """Yield the database at `--path`, or a temporary one, which is removed at the end unless `--keep` is given."""
    if options.path is not None:
        yield prepared(options.path)
        return
    folder, keep = Path(tempfile.mkdtemp(prefix="aiosqlitepool-demo-")), False
    try:
        yield prepared(folder / "demo.db")
        keep = options.keep
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _prepared(console: Console, path: Path, scale: float | None) -> Database:
    from . import report

    began = time.monotonic()
    with report.building(console) as progress:
        database = open_or_build(path, scale, progress)
    how = "reused" if database.reused else f"built in {time.monotonic() - began:.1f} s"
    megabytes = database.path.stat().st_size / 1e6
    console.print(f"Database of scale {database.scale:g}, {how}: {database.size}; {megabytes:,.1f} MB", soft_wrap=True)
    return database
