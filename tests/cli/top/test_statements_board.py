from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from aiosqlitepool import StatementStats
from aiosqlitepool.cli.top.statements import SORTS, PoolStatements, Reading
from aiosqlitepool.cli.top.statements_board import StatementsBoard, _shared_out

from .rows import row

URL = "http://127.0.0.1:8000/debug/pool/"
NAMES = ["total", "share", "mean", "P99", "max", "calls", "rows", "errors", "changed"]
NAMES += ["total", "mean", "P99", "max", "inline", "seen", "operation", "labels"]


def board_of(*rows: StatementStats, forgotten: int = 0, sort: str = "total", limit: int = 20) -> StatementsBoard:
    return StatementsBoard(Reading(0.0, 100.0, (PoolStatements("app.db", rows, forgotten),)), URL, sort, limit)


def shown(board: StatementsBoard, width: int, height: int | None = None) -> list[str]:
    """The lines of the board, on a screen of this height or on endless paper."""
    console = Console(file=io.StringIO(), width=width, height=height or 25, force_terminal=height is not None)
    console.set_alt_screen(height is not None)
    return ["".join(segment.text for segment in line).rstrip() for line in console.render_lines(board)]


def headings(lines: list[str]) -> list[str]:
    return next(line for line in lines if line.startswith("statement")).split()


def test_it_has_a_line_for_each_statement() -> None:
    lines = shown(board_of(row("SELECT a", run_total=3.0, calls=1234), row("SELECT b", run_total=1.0)), 120)
    assert lines[0] == f"aiosqlitepool top  {URL}"
    assert lines[2] == "app.db  2 statements"
    assert headings(lines)[:7] == ["statement", *NAMES[:6]]
    assert [line.split()[:7] for line in lines[6:8]] == [
        ["SELECT", "a", "3.00", "s", "75.0%", "250", "ms"],
        ["SELECT", "b", "1.00", "s", "25.0%", "250", "ms"],
    ]
    assert "  1,234  " in lines[6]


def test_all_columns_are_there_if_the_terminal_is_wide() -> None:
    lines = shown(board_of(row("SELECT a", labels=("GET /", "POST /"))), 200)
    assert headings(lines) == ["statement", *NAMES]
    assert shown(board_of(row("SELECT a", last_seen=99.5)), 200)[6].endswith("  now     SELECT")
    late = StatementsBoard(Reading(0.0, 3_700.0, board_of(row("SELECT a")).reading.pools), URL, "total", 20)
    assert "1 h 0 min ago" in shown(late, 200)[6]
    assert lines[6].endswith("40 s ago     SELECT  GET /, POST /")


@pytest.mark.parametrize("width", [1, 10, 30, 40, 60, 80, 100, 140])
def test_the_narrower_the_fewer_columns_from_the_right_and_the_statement_stays(width: int) -> None:
    lines = shown(board_of(row("SELECT " + "column, " * 50)), width)
    assert max(map(len, lines)) <= width
    if width >= 30:
        assert next(line for line in lines if line.startswith("SELECT "))[:30].count("column") >= 2
        found = headings(lines)
        assert found == ["statement", *NAMES[: len(found) - 1]]
        assert len(found) - 1 == {30: 0, 40: 1, 60: 3, 80: 6, 100: 9, 140: 14}[width]


@pytest.mark.parametrize("sort", SORTS)
def test_the_column_that_it_is_sorted_by_is_the_first(sort: str) -> None:
    rows = [row("SELECT a", **{SORTS[sort]: 1}), row("SELECT b", **{SORTS[sort]: 2})]
    lines = shown(board_of(*rows, sort=sort), 60)
    assert headings(lines)[1] == {"p99": "P99"}.get(sort, sort)
    assert [line.split()[1] for line in lines[6:8]] == ["b", "a"]


def test_a_limit_is_told_and_so_is_what_was_forgotten() -> None:
    rows = [row(f"SELECT a{number}") for number in range(1_500)]
    lines = shown(board_of(*rows, forgotten=1_200, sort="calls", limit=3), 100)
    assert lines[2] == "app.db  1,500 statements, the first 3 by calls; 1,200 more were forgotten"
    assert len([line for line in lines if line.startswith("SELECT")]) == 3


def test_a_pool_without_statements_has_no_table() -> None:
    assert shown(board_of(), 100)[2:] == ["app.db  no statements yet"]
    assert shown(board_of(row("SELECT a", run_total=0.0)), 100)[2] == "app.db  1 statement"


def test_statements_that_took_no_time_have_no_share() -> None:
    assert "  -  " in shown(board_of(row("SELECT a", run_total=0.0)), 100)[6]


def test_an_error_is_above_the_last_figures() -> None:
    lines = shown(replace(board_of(row("SELECT a")), error="no figures for 3 s: gone"), 100)
    assert lines[1] == "no figures for 3 s: gone"
    assert any(line.startswith("SELECT a") for line in lines)


PLAN = ("SCAN orders  <-- full scan of orders", "USE TEMP B-TREE FOR ORDER BY  <-- temporary B-tree FOR ORDER BY")
MARKED = "  full scan of orders, temporary B-tree FOR ORDER BY"


def test_what_makes_a_plan_slow_is_below_the_statement() -> None:
    lines = shown(board_of(row("SELECT a", plan=PLAN), row("SELECT b", plan=("SEARCH b",))), 120)
    first = next(at for at, line in enumerate(lines) if line.startswith("SELECT a"))
    assert lines[first + 1] == MARKED
    assert lines[first + 2].startswith("SELECT b")
    assert len(lines) == first + 3


@pytest.mark.parametrize("width", [20, 30, 40])
def test_what_makes_a_plan_slow_is_cut_on_a_narrow_terminal(width: int) -> None:
    assert shown(board_of(row("SELECT a", plan=PLAN)), width)[-1] == f"{MARKED[: width - 1]}…"


@pytest.mark.parametrize(
    ("height", "plan", "expected"),
    [
        *((9, (), 0), (13, (), 0), (15, (), 2), (24, (), 11), (50, (), 37), (53, (), 40), (200, (), 40)),
        *((13, PLAN, 0), (15, PLAN, 0), (17, PLAN, 2), (24, PLAN, 5), (93, PLAN, 40)),
    ],
)
def test_pools_share_the_height_of_a_terminal(height: int, plan: tuple[str, ...], expected: int) -> None:
    rows = tuple(row(f"SELECT a{number}", plan=plan) for number in range(40))
    pools = tuple(PoolStatements(name, rows, 0) for name in ("db0", "db1"))
    lines = shown(StatementsBoard(Reading(0.0, 100.0, pools), URL, "total", 20), 80, height)
    texts = "\n".join(lines)
    assert len(lines) <= height
    assert texts.count("SELECT a") == expected
    assert texts.count("full scan") == (expected if plan else 0)
    assert texts.count("40 statements, no room for them") == (0 if expected else 2)
    assert texts.count("SELECT a0 ") == (2 if expected else 0)


def test_a_pool_with_few_statements_leaves_its_lines_to_the_others() -> None:
    assert _shared_out(20, [2, 40, 40]) == [2, 9, 9]
    assert _shared_out(20, [40, 2]) == [18, 2]
    assert _shared_out(-3, [40, 2]) == [0, 0]
    assert _shared_out(20, []) == []


def test_what_others_have_written_is_only_text() -> None:
    evil = "\x1b[2J\u202e[red]表🗂\ud800\n"
    plan = (f"SCAN  <-- {evil}",)
    pool = PoolStatements(evil, (row(evil, labels=(evil,), operation=evil, plan=plan),), 0)
    board = StatementsBoard(Reading(0.0, 100.0, (pool,)), URL, "total", 9)
    lines = shown(board, 200)
    texts = "\n".join(lines)
    assert texts.count("�[2J�[red]表🗂��") == 5
    assert not {"\x1b", "\u202e", "\ud800"} & set(texts)
