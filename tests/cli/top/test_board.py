from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from aiosqlitepool.cli.top.board import Board, _rate
from aiosqlitepool.cli.top.figures import Held, Percentile, PoolFigures, Span
from aiosqlitepool.cli.top.statements import PoolStatements, Reading
from aiosqlitepool.cli.top.statements_board import StatementsBoard

from ...support.documents import FENCED, text_of
from .rows import row

SPAN = Span(2.0, 12345, 1, 98765, Percentile(0.0324), Percentile(0.0496), Percentile(0.005), 3, 4, 5, 6)
TOTAL = Span(None, 12345678, 1, 98765432, Percentile(0.0324), None, None, 3, 4, 5, 6)


def shown(width: int, *holders: Held) -> list[str]:
    """The lines of a board in a terminal of this width."""
    pool = PoolFigures("app.db", 5, 0, 5, 4, 0.0253, 0.0022, SPAN, TOTAL, holders)
    return printed(Board([pool], "http://127.0.0.1:8000/metrics"), width)


def printed(board: RenderableType, width: int) -> list[str]:
    """The lines of a board, without what is blank at their ends."""
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(board)
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize(
    ("rate", "shown"), [(0.0, "0/s"), (0.01, "<0.1/s"), (0.05, "0.1/s"), (9.94, "9.9/s"), (12345.6, "12,346/s")]
)
def test_a_rate_is_as_exact_as_one_would_read_it(rate: float, shown: str) -> None:
    assert _rate(rate) == shown


@pytest.mark.parametrize("width", [100, 80, 60])
def test_it_fits_into_the_terminal_and_cuts_no_figure(width: int) -> None:
    lines = shown(width)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    for figure in ("12,345,678", "98,765,432", "32.4 ms", "49.6 ms", "5.0 ms", "5 used, 0 idle of 5"):
        assert figure in "\n".join(lines)


def test_in_a_narrow_terminal_the_figures_stand_below_each_other() -> None:
    rows = [" ".join(line.split()) for line in shown(60)]
    assert "acq. queued 49,382/s 98,765,432" in rows
    assert "timeouts 1.5/s 3" in rows
    assert "rollbacks 3.0/s 6" in rows


def test_a_legend_explains_the_headings() -> None:
    legend = " ".join(" ".join(shown(60)[-6:]).split())
    for words in ("acq.: acquires by path", "hold: time in use", "failures: connections", "rollbacks: releases"):
        assert words in legend


def test_holders_have_a_line_each_and_a_suspected_leak_says_so() -> None:
    slow = "SELECT * FROM orders ORDER BY total DESC LIMIT 1000"
    lines = shown(60, Held(2, "nightly report", 61.4, slow, True), Held(1, "GET /users\x1b[2J", 0.2, None, False))
    (first,) = [line for line in lines if line.startswith("#2")]
    (second,) = [line for line in lines if line.startswith("#1")]
    assert " ".join(first.split()).startswith("#2 nightly report 61.4 s suspected leak SELECT")
    assert first.rstrip().endswith("…")
    assert second.split() == ["#1", "GET", "/users�[2J", "200", "ms"]


def test_of_many_holders_the_longest_are_shown() -> None:
    lines = shown(80, *(Held(number, f"task {number}", 1.0, None, False) for number in range(1, 1013)))
    assert sum(line.lstrip().startswith("#") for line in lines) == 10
    assert "and 1,002 more holders" in lines


# -- the documentation

PAGE = text_of(Path("docs/debug.md"))
LEVELS, HOLDERS, STATEMENTS = (body.splitlines() for _, language, body in FENCED.findall(PAGE) if not language)
SCAN = ("SCAN users  <-- full scan of users",)


def test_the_documentation_shows_what_it_prints() -> None:
    now = Span(2.0, 0, 0, 7160, Percentile(0.0324), Percentile(0.0496), Percentile(0.005), 0, 0, 0, 0)
    total = Span(None, 210, 210, 128844, Percentile(0.0291), Percentile(0.0809), Percentile(0.005), 0, 210, 0, 0)
    holders = (
        Held(2, "nightly report", 61.4, "SELECT * FROM orders ORDER BY total DESC", True),
        Held(1, "GET /users", 0.25, "SELECT name FROM users WHERE id = ?", False),
    )
    pool = PoolFigures("app.db", 5, 0, 5, 4, 0.0253, 0.0022, now, total, holders)
    assert printed(Board([pool], "http://127.0.0.1:8000/debug/pool/"), 100)[2:11] == [*LEVELS, *HOLDERS]


def test_the_documentation_shows_the_statements_that_it_prints() -> None:
    statements = (
        row(
            "SELECT count(*) FROM users WHERE name LIKE ?",
            run_total=1.49,
            run_mean=0.0023,
            run_p99=0.0071,
            run_max=0.0205,
            calls=647,
            rows=647,
            plan=SCAN,
        ),
        row("BEGIN IMMEDIATE", run_total=1.2, run_mean=0.0061, run_p99=0.113, run_max=0.129, calls=198, rows=0),
        row("COMMIT", run_total=0.188, run_mean=0.000972, run_p99=0.005, run_max=0.0291, calls=193, rows=0),
        row(
            "SELECT * FROM users WHERE id = ?",
            run_total=0.0868,
            run_mean=0.000074,
            run_p99=0.000312,
            run_max=0.0041,
            calls=1173,
            rows=1173,
        ),
        row("PRAGMA optimize", run_total=0.006),
        row("SELECT ?", run_total=0.003),
    )
    reading = Reading(1.0, 60.0, (PoolStatements("shop.db", statements, 0),))
    lines = printed(StatementsBoard(reading, "http://127.0.0.1:8000/debug/pool/", "total", 20), 85)
    assert lines[2 : 2 + len(STATEMENTS)] == STATEMENTS
