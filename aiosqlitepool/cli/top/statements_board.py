"""Render the statements of pools in a terminal: a table for each pool, as wide and as long as fits."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from aiosqlitepool import StatementStats

from ...debug.words import duration
from .board import head
from .endpoint import printable
from .statements import SORTS, PoolStatements, Reading

__all__ = ["StatementsBoard"]

_STATEMENT = 30  # columns that a statement keeps, if it needs them, however narrow the terminal is
_WIDEST = 40  # columns of any other
_GAP = 2  # columns
_HEAD = 3  # lines, with an error of two lines
_HEADINGS = 3  # lines of a table above its rows
_ABOVE = 2 + _HEADINGS  # lines of a pool above its statements

Rows = Sequence[StatementStats]


class _Context(NamedTuple):
    """What a cell needs besides its statement: the Unix time, and the run time of all statements in seconds."""

    now: float
    total: float


class _Column(NamedTuple):
    heading: str
    cell: Callable[[StatementStats, _Context], str]
    style: str = ""
    justify: Literal["left", "right"] = "right"

    def styled(self, text: str) -> Text:
        return Text(text, "" if text == "0" else self.style)


def _time(field: str, heading: str) -> _Column:
    return _Column(heading, lambda row, _: duration(getattr(row, field)))


def _count(field: str, heading: str, style: str = "") -> _Column:
    return _Column(heading, lambda row, _: f"{getattr(row, field):,}", style)


def _share(row: StatementStats, context: _Context) -> str:
    return f"{row.run_total / context.total:.1%}" if context.total else "-"


def _seen(row: StatementStats, context: _Context) -> str:
    ago = context.now - row.last_seen
    if ago < 1:  # also if it ran while the page was asked
        return "now"
    return f"{ago:.0f} s ago" if ago < 99.5 else f"{duration(ago)} ago"


# By the field that they show, the most important first: those on the right are left out first.
_COLUMNS = {
    "run_total": _time("run_total", "run\ntotal"),
    "share": _Column("\nshare", _share),
    "run_mean": _time("run_mean", "run\nmean"),
    "run_p99": _time("run_p99", "run\nP99"),
    "run_max": _time("run_max", "run\nmax"),
    "calls": _count("calls", "\ncalls"),
    "rows": _count("rows", "\nrows"),
    "errors": _count("errors", "\nerrors", "bold red"),
    "rows_changed": _count("rows_changed", "\nchanged"),
    "wait_total": _time("wait_total", "wait\ntotal"),
    "wait_mean": _time("wait_mean", "wait\nmean"),
    "wait_p99": _time("wait_p99", "wait\nP99"),
    "wait_max": _time("wait_max", "wait\nmax"),
    "inline": _count("inline", "\ninline"),
    "last_seen": _Column("last\nseen", _seen),
    "operation": _Column("\noperation", lambda row, _: printable(row.operation)),
    "labels": _Column("\nlabels", lambda row, _: printable(", ".join(row.labels)), justify="left"),
}


@dataclass(frozen=True)
class StatementsBoard:
    """The statements of all pools, below the URL and the error of the last reading.

    Attributes:
        sort: a key of `SORTS`. Its column is the first, so that it is always shown.
        limit: how many statements of a pool are shown, or fewer if the terminal has no room for them.
    """

    reading: Reading
    url: str
    sort: str
    limit: int
    error: str | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the board for this width, and for this height if nothing can be scrolled."""
        yield from head(self.url, self.error)
        tops: list[Sequence[StatementStats]] = [pool.sorted_by(self.sort)[: self.limit] for pool in self.reading.pools]
        if console.is_alt_screen:
            tops = _fitting_below(options.max_height - _HEAD - _ABOVE * len(tops), tops)
        for pool, rows in zip(self.reading.pools, tops, strict=True):
            yield Text()
            yield self._title(pool, len(rows))
            if rows:
                lines = console.render_lines(self._table(pool, rows, options.max_width), pad=False)
                yield from _with_warnings(lines, rows)

    def _title(self, pool: PoolStatements, length: int) -> Text:
        count = len(pool.statements)
        about = "1 statement" if count == 1 else f"{count:,} statements" if count else "no statements yet"
        if length < count:
            about += f", the first {length:,} by {self.sort}" if length else ", no room for them"
        if pool.forgotten:
            about += f"; {pool.forgotten:,} more were forgotten"
        return Text.assemble((printable(pool.pool), "bold"), "  ", (about, "dim"), no_wrap=True, overflow="ellipsis")

    def _table(self, pool: PoolStatements, rows: Rows, width: int) -> Table:
        statements = [printable(row.statement) for row in rows]
        longest = max(len("statement"), *map(cell_len, statements))
        context = _Context(self.reading.now, sum(row.run_total for row in pool.statements))
        shown = _fitting_beside(width - min(longest, _STATEMENT), self._columns(), rows, context)
        left = width - sum(each.width + _GAP for each in shown)
        # The other column of a gap is where other boxes have their lines.
        table = Table(box=box.SIMPLE_HEAD, header_style="dim", padding=(0, 0, 0, _GAP - 1), pad_edge=False)
        table.show_edge = False
        table.add_column("\nstatement", width=min(longest, left), no_wrap=True, overflow="ellipsis")
        for column, _, each in shown:
            table.add_column(column.heading, width=each, justify=column.justify, no_wrap=True, overflow="ellipsis")
        for index, statement in enumerate(statements):
            table.add_row(Text(statement), *(column.styled(cells[index]) for column, cells, _ in shown))
        return table

    def _columns(self) -> list[_Column]:
        first = SORTS[self.sort]
        return [_COLUMNS[first], *(column for name, column in _COLUMNS.items() if name != first)]


def _with_warnings(lines: Iterable[list[Segment]], rows: Rows) -> RenderResult:
    """Yield the lines of a table, and below that of each statement what makes its query plan slow."""
    for number, line in enumerate(lines, -_HEADINGS):
        yield from (*line, Segment.line())
        if number >= 0 and (warnings := rows[number].plan_warnings):
            yield Text(f"  {printable(', '.join(warnings))}", "yellow", no_wrap=True, overflow="ellipsis")


class _Shown(NamedTuple):
    column: _Column
    cells: Sequence[str]
    width: int


def _fitting_beside(room: int, columns: Iterable[_Column], rows: Rows, context: _Context) -> Sequence[_Shown]:
    """Return the columns that fit into so many columns of the terminal, from the left."""
    shown: list[_Shown] = []
    for column in columns:
        cells = [column.cell(row, context) for row in rows]
        width = min(_WIDEST, max(map(cell_len, (*column.heading.split("\n"), *cells))))
        room -= width + _GAP
        if room < 0:
            break
        shown.append(_Shown(column, cells, width))
    return shown


def _fitting_below(lines: int, tops: Sequence[Rows]) -> list[Rows]:
    """Return of each pool the first rows, as many as fit into so many lines of the terminal."""
    ends = [list(accumulate(2 if row.plan_warnings else 1 for row in rows)) for rows in tops]
    given = _shared_out(lines, [end[-1] if end else 0 for end in ends])
    return [rows[: bisect_right(end, most)] for rows, end, most in zip(tops, ends, given, strict=True)]


def _shared_out(lines: int, wanted: Sequence[int]) -> list[int]:
    """Return how many of the lines each pool gets: all that it wants, or as many as any other that wants more."""
    given = [0] * len(wanted)
    for left, index in zip(range(len(wanted), 0, -1), sorted(range(len(wanted)), key=wanted.__getitem__), strict=True):
        given[index] = max(0, min(wanted[index], lines // left))
        lines -= given[index]
    return given
