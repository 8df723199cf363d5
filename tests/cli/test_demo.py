"""The demo, as a user meets it: one small run from the command line, its files, and what it refuses."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from aiosqlitepool.__main__ import main
from aiosqlitepool.cli.demo import cli, data, load, orders

from ..support.children import child

SCALE = 0.0005
SMALL = ["--requests", "50", "--workers", "10", "--selects", "200", "--orders", "100", "--writers", "5"]
UNIX = pytest.mark.skipif(os.name != "posix", reason="needs signals and terminals as POSIX has them")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "aiosqlitepool", "demo", *map(str, arguments)]


def environment(temporary: Path) -> dict[str, str]:
    # FORCE_COLOR must not bring control codes into a pipe; the width must not depend on who runs the tests.
    wanted = {"TMPDIR": str(temporary), "FORCE_COLOR": "1", "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    return {**os.environ, **wanted}


def demo(temporary: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(temporary), capture_output=True, encoding="utf-8", timeout=100
    )


def row(output: str, first_cell: str) -> list[list[str]]:
    """The cells of every table row that begins with this cell."""
    rows = [re.split(r" {2,}", line.strip()) for line in output.splitlines()]
    return [cells[1:] for cells in rows if cells[0] == first_cell]


# -- a whole run


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    pytest.importorskip("rich")
    temporary = tmp_path_factory.mktemp("demo")
    done = demo(temporary, "--scale", SCALE, *SMALL)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, temporary


def test_plain_output_has_no_control_codes(small_run: tuple[str, Path]) -> None:
    output, _ = small_run
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", output)


def test_the_temporary_database_is_gone(small_run: tuple[str, Path]) -> None:
    _, temporary = small_run
    assert list(temporary.iterdir()) == []


def test_progress_is_told_in_lines(small_run: tuple[str, Path]) -> None:
    output, _ = small_run
    assert "600 users, 60 posts, 3,000 comments, 6,000 likes" in output
    assert "User pages, without pool: 50 of 50 requests" in output
    assert "Lookups, without pool: 200 of 200 SELECTs" in output
    levels = r"per second; \d+ used, \d+ idle, \d+ waiting, P99 wait \d+\.\d ms"
    assert re.search(rf"User pages, with pool: 50 of 50 requests, [\d,]+ {levels}", output)
    assert re.search(rf"Lookups, with pool: 200 of 200 SELECTs, [\d,]+ {levels}", output)


def test_each_workload_has_its_table(small_run: tuple[str, Path]) -> None:
    output, _ = small_run
    assert "User pages: 50 requests, 10 workers" in output
    assert "Lookups: 200 SELECTs, 5 workers" in output
    for metric in ("average, ms", "median, ms", "P90, ms", "P99, ms"):
        assert [len(cells) for cells in row(output, metric)] == [3, 3, 3]
    for rate in (*row(output, "requests per second"), *row(output, "SELECTs per second")):
        without, pooled, improvement = rate
        quotient = float(pooled.replace(",", "")) / float(without.replace(",", ""))
        assert float(improvement.removesuffix(" x")) == pytest.approx(quotient, rel=0.05, abs=0.06)


def test_it_says_at_first_what_without_a_pool_is(small_run: tuple[str, Path]) -> None:
    output, _ = small_run
    before, said, _ = output.partition("Without pool, each request opens an aiosqlite connection and closes it")
    assert said
    assert "without pool" not in before


def test_it_ends_with_one_sentence_of_what_was_seen(small_run: tuple[str, Path]) -> None:
    output, _ = small_run
    said = re.fullmatch(
        r"In short: the pool served (.*) times the user pages and (.*) times the lookups per second; db.run_write\(\) "
        r"wrote (.*) orders per second instead of (.*), the slowest in (.*) ms instead of (.*) ms\.",
        output.splitlines()[-1],
    )
    assert said
    improved = [
        cells[2].removesuffix(" x") for unit in ("requests", "SELECTs") for cells in row(output, f"{unit} per second")
    ]
    (orders,), (longest,) = row(output, "orders per second"), row(output, "longest, ms")
    assert said.groups()[:4] == (*improved, orders[2], orders[0])
    # Rounded more than in the table.
    assert [number(each) for each in said.groups()[4:]] == pytest.approx(
        [number(longest[2]), number(longest[0])], abs=0.51
    )


def number(text: str) -> float:
    """A number as people read it."""
    return float(text.replace(",", ""))


def test_orders_are_written_in_three_ways_of_which_two_never_fail(small_run: tuple[str, Path]) -> None:
    output, _ = small_run
    assert "Orders: 100 transactions, 5 writers, lock timeout 1 s" in output
    assert re.search(r"^Orders, pool of 5: \d+ of 100 written, [\d,]+ per second$", output, re.M)
    for way in ("db.write()", "db.run_write()"):
        assert f"Orders, {way}: 100 of 100 written" in output
    (_, *through_the_database), (longest,) = *row(output, "database is locked"), row(output, "longest, ms")
    assert through_the_database == ["0", "0"]
    assert len(longest) == 3


async def test_writers_that_collide_for_too_long_are_counted_and_nothing_else_is(tmp_path: Path) -> None:
    async def busy(order: int) -> None:
        with closing(sqlite3.connect(tmp_path / "orders.db", timeout=0, isolation_level=None)) as one:
            one.execute("BEGIN IMMEDIATE")
            if order:
                with closing(sqlite3.connect(tmp_path / "orders.db", timeout=0, isolation_level=None)) as other:
                    other.execute("BEGIN IMMEDIATE")

    writing = orders.Writing("collisions", 3)
    await orders._drive(writing, busy, 2)
    assert (writing.failed, len(writing.latencies)) == (2, 3)

    async def wrong(order: int) -> None:
        with closing(sqlite3.connect(":memory:")) as memory:
            memory.execute("SELECT * FROM missing")

    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await orders._drive(orders.Writing("wrong", 1), wrong, 1)


def test_every_event_is_counted_once(small_run: tuple[str, Path]) -> None:
    output, _ = small_run
    warm_up = [50, 100]
    served = [str(50 + warm_up[0]), str(200 + warm_up[1])]
    assert row(output, "acquire_wait") == row(output, "release") == [served]
    assert row(output, "create") == row(output, "close")
    assert row(output, "pool_open") == row(output, "pool_close") == [["1", "1"]]


def test_the_slowest_are_told_with_what_they_waited_for(small_run: tuple[str, Path]) -> None:
    output, _ = small_run
    slowest = output.split("The slowest acquires")[1]
    told = re.findall(r"^ *(\d+\.\d\d) +GET /users/\{id\} +\d+ +(GET /users/\{id\} \(\d+\.\d\)|-)", slowest, re.M)
    waits = [float(wait) for wait, _ in told]
    assert len(waits) == 5
    assert waits == sorted(waits, reverse=True)


@UNIX
def test_ctrl_c_ends_it_and_removes_the_files(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    with child(
        command("--scale", SCALE, "--requests", 1_000_000),
        within=100,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as running:
        assert running.stdout is not None
        assert any(line.startswith("User pages, without pool") for line in running.stdout)
        assert len(list(tmp_path.iterdir())) == 1
        running.send_signal(signal.SIGINT)
        _, complaint = running.communicate(timeout=60)
    assert running.returncode == 130
    assert complaint == "python -m aiosqlitepool demo: interrupted\n"
    assert list(tmp_path.iterdir()) == []


@UNIX
def test_a_terminal_gets_a_live_board(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    ours, theirs = os.openpty()
    output = b""
    with child(command("--scale", SCALE, *SMALL), within=100, env=environment(tmp_path), stdout=theirs) as running:
        os.close(theirs)
        try:
            while chunk := os.read(ours, 65_536):
                output += chunk
        except OSError:
            pass  # so Linux says that the other end is closed
        finally:
            os.close(ours)
        assert running.wait(timeout=60) == 0, output
    assert b"\x1b[?25l" in output, "the cursor was never hidden"
    assert output.rfind(b"\x1b[?25h") > output.rfind(b"\x1b[?25l"), "the cursor was not shown again"
    assert b"P99 wait" in output


# -- its files


def test_keep_keeps_the_temporary_database(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    done = demo(tmp_path, "--scale", SCALE, *SMALL, "--keep")
    assert done.returncode == 0
    kept = re.search(r"The database is kept: (.+)", done.stdout)
    assert kept is not None
    assert [each.name for each in Path(kept[1]).parent.iterdir()] == ["demo.db"]


def test_a_database_of_its_own_is_reused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    path = tmp_path / "a #1?.db"  # a name that a URI must quote
    given = ["demo", "--path", str(path), *SMALL]
    assert main([*given, "--scale", str(SCALE)]) == 0
    assert "built in" in capsys.readouterr().out
    built = path.stat()
    for scale in (["--scale", str(SCALE)], []):
        assert main([*given, *scale]) == 0
        assert f"Database of scale {SCALE}, reused" in capsys.readouterr().out
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (built.st_ino, built.st_mtime_ns)
    assert list(tmp_path.iterdir()) == [path]


def test_a_database_of_another_scale_is_built_anew(tmp_path: Path) -> None:
    path = tmp_path / "demo.db"
    data.build(path, SCALE, print)
    (tmp_path / "demo.db-wal").write_bytes(b"the journal of a program that died")
    database = data.open_or_build(path, 0.0002, print)
    assert database == data.Database(path, 0.0002, reused=False)
    assert list(tmp_path.iterdir()) == [path]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM users").fetchone() == (240,)


def foreign_text(path: Path) -> None:
    path.write_text("Dear diary")


def foreign_nothing(path: Path) -> None:
    path.touch()


def foreign_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript("PRAGMA journal_mode = WAL; CREATE TABLE precious (value)")


def foreign_meta(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript("CREATE TABLE demo_meta (key, value); INSERT INTO demo_meta VALUES ('scale', '1.0')")


@pytest.mark.parametrize("make", [foreign_text, foreign_nothing, foreign_database, foreign_meta])
@pytest.mark.parametrize("scale", [[], ["--scale", str(SCALE)]])
def test_a_foreign_file_is_left_alone(
    tmp_path: Path, make: Callable[[Path], None], scale: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich")
    path = tmp_path / "mine.db"
    make(path)
    before = path.read_bytes()
    assert cli.main(["--path", str(path), *scale]) == 2
    complaint = capsys.readouterr().err
    assert f"argument --path: cannot use {str(path)!r}: it exists and is not a demo database" in complaint
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("name", "reason"), [("", "it is not a file"), ("no/x.db", "there is no directory")])
def test_an_impossible_path_is_named(
    tmp_path: Path, name: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich")
    assert cli.main(["--path", str(tmp_path / name)]) == 2
    assert f"argument --path: cannot use {str(tmp_path / name)!r}: {reason}" in capsys.readouterr().err


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(table: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.build(tmp_path / "demo.db", SCALE, interrupt)
    assert list(tmp_path.iterdir()) == []


# -- its data and queries


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    data.build(tmp_path / "demo.db", SCALE, lambda table, done, total: None)
    with closing(sqlite3.connect(tmp_path / "demo.db")) as db:
        yield db


def test_the_data_is_the_same_every_time_and_sound(tmp_path: Path, database: sqlite3.Connection) -> None:
    data.build(tmp_path / "again.db", SCALE, lambda table, done, total: None)
    with closing(sqlite3.connect(tmp_path / "again.db")) as again:
        assert list(again.iterdump()) == list(database.iterdump())
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("scale", [0.0001, 0.00037, 0.0005])
def test_every_table_has_its_size(tmp_path: Path, scale: float) -> None:
    told: list[tuple[str, int, int]] = []
    path, size = tmp_path / "demo.db", data.Size.at(scale)
    data.build(path, scale, lambda *progress: told.append(progress))
    with closing(sqlite3.connect(path)) as db:
        for table in ("users", "posts", "comments", "likes"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (getattr(size, table),)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1][1] == told[-1][2]


def test_the_full_size() -> None:
    assert data.Size.at(1.0) == data.Size(1_200_000, 120_000, 6_000_000, 12_000_000)


@pytest.mark.parametrize("query", [*load._USER_PAGE, load._SELECT_USER])
def test_every_query_uses_an_index_and_finds_something(database: sqlite3.Connection, query: str) -> None:
    plan = [step[-1] for step in database.execute(f"EXPLAIN QUERY PLAN {query}", (1,))]
    assert not [step for step in plan if step.startswith("SCAN")]
    for user in range(1, data.Size.at(SCALE).writers + 1):
        assert database.execute(query, (user,)).fetchall()


def test_both_ways_get_the_same_requests() -> None:
    size = data.Size.at(SCALE)
    assert load.user_pages(size, 50, 10) == load.user_pages(size, 50, 10)
    assert load.select_users(size, 50, 10) == load.select_users(size, 50, 10)
    assert set(load.user_pages(size, 500, 10).keys) <= set(range(1, size.writers + 1))


# -- what it refuses


@pytest.mark.parametrize(
    ("argument", "value", "wanted"),
    [
        ("--scale", "0", "a number from 0.0001 to 10"),
        ("--scale", "nan", "a number from 0.0001 to 10"),
        ("--scale", "big", "a number from 0.0001 to 10"),
        ("--pool-size", "0", "a whole number from 1 to 1000"),
        ("--requests", "1.5", "a whole number from 1 to 10000000"),
        ("--workers", "1001", "a whole number from 1 to 1000"),
        ("--selects", "-1", "a whole number from 1 to 10000000"),
        ("--select-workers", "", "a whole number from 1 to 1000"),
        ("--writers", "0", "a whole number from 1 to 1000"),
    ],
)
def test_a_bad_argument_is_named_with_its_value(
    argument: str, value: str, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", argument, value])
    assert ended.value.code == 2
    assert f"error: argument {argument}: must be {wanted}, not {value!r}" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["dance"], ["demo", "--dance"], ["demo", "dance"]])
def test_an_unknown_command_or_argument_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert (arguments[-1] if arguments else "COMMAND") in capsys.readouterr().err


def test_help_needs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in ((["--help"], "demo "), (["demo", "--help"], "--select-workers")):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert expected in capsys.readouterr().out


def test_without_rich_it_says_what_to_install(tmp_path: Path) -> None:
    script = "import sys; sys.modules['rich'] = None\nfrom aiosqlitepool.__main__ import main\nsys.exit(main(['demo']))"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(tmp_path), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'aiosqlitepool[demo]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_connection_that_fails_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich")

    async def refuse(path: Path) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(load, "_connect", refuse)
    assert cli.main(["--path", str(tmp_path / "demo.db"), "--scale", str(SCALE), *SMALL]) == 1
    told = capsys.readouterr().err
    assert told.endswith("error: unable to open database file (too many open files? use fewer --workers)\n")


# -- percentiles


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([7.0], 0, 7.0),
        ([7.0], 50, 7.0),
        ([7.0], 100, 7.0),
        ([1.0, 2.0], 50, 1.0),
        ([1.0, 2.0], 51, 2.0),
        ([1.0, 2.0, 3.0], 50, 2.0),
        ([float(n) for n in range(1, 11)], 90, 9.0),
        ([float(n) for n in range(1, 11)], 91, 10.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([float(n) for n in range(1, 1001)], 99, 990.0),
        ([float(n) for n in range(1, 1001)], 1, 10.0),
    ],
)
def test_percentile(values: list[float], percent: int, expected: float) -> None:
    assert load.percentile(values, percent) == expected


@pytest.mark.parametrize("percent", range(101))
def test_percentile_is_what_it_says(percent: int) -> None:
    values = [float(n * n) for n in range(37)]
    found = load.percentile(values, percent)
    assert 100 * sum(value <= found for value in values) >= percent * len(values)
    assert 100 * sum(value < found for value in values) < max(percent, 1) * len(values)


def test_percentile_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="no values"):
        load.percentile([], 50)
    for percent in (-1, 101):
        with pytest.raises(ValueError, match=f"from 0 to 100, not {percent}"):
            load.percentile([1.0], percent)
