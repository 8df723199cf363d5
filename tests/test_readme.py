"""The README and the pages in docs/: every Python block runs, and prints what is shown; tables are whole."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiosqlitepool import SQLiteConnectionPool, SQLiteDatabase, errors, events
from aiosqlitepool.subscribers import _structlog_records
from aiosqlitepool.subscribers._metrics import METRICS, label_name

from .support.documents import DOCUMENTS, programs_in, text_of

EVENTS, METRICS_PAGE = Path("docs/events.md"), Path("docs/metrics.md")
ERRORS, SETTINGS = Path("docs/reference/errors.md"), Path("docs/settings.md")
# CONTRIBUTING.md is followed by a test of its own.
PROGRAMS = [
    pytest.param(program, printed, id=f"{document}-{number}")
    for document in DOCUMENTS
    for number, (program, printed) in enumerate(programs_in(document), 1)
]


def run(program: str, directory: Path, *options: str) -> str:
    """What a program prints, and complains of, in order."""
    command = [sys.executable, "-u", *options, "-c", program]
    ran = subprocess.run(
        command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def test_every_record_for_structlog_is_on_its_page() -> None:
    written = re.findall(r'"(pool\.[a-z_.]+)"', inspect.getsource(_structlog_records))
    assert set(re.findall(r"`(pool\.[a-z_.]+)`", text_of(Path("docs/observability.md")))) == set(written)


def alike(printed: str) -> list[str]:
    """Its words, whatever the numbers, the directory and the breaks of lines."""
    return re.sub(r"'/[^']*/", "'", re.sub(r"\d+", "N", printed)).split()


def test_the_programs_are_found() -> None:
    assert len(PROGRAMS) >= 50
    assert sum(text_of(document).count("```text\n") for document in DOCUMENTS) == sum(
        printed is not None for document in DOCUMENTS for _, printed in programs_in(document)
    )


@pytest.mark.parametrize(("program", "printed"), PROGRAMS)
def test_every_block_runs_and_prints_what_is_shown(program: str, printed: str | None, tmp_path: Path) -> None:
    if printed is None:
        run(f"{program}\nprint('at its end')", tmp_path, "-W", "error")
    else:
        assert alike(run(program, tmp_path)) == alike(printed)


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if programs_in(document)], ids=str)
def test_the_blocks_of_a_document_run_one_after_the_other_in_one_directory(document: Path, tmp_path: Path) -> None:
    for program, _ in programs_in(document):
        run(program, tmp_path)


def test_the_table_of_events_has_them_all() -> None:
    table = re.findall(r"^\| `[^\n]*", text_of(EVENTS), re.MULTILINE)
    for event in events.event_types():
        assert any(f"`{event.name}`" in row and f"`{event.__name__}`" in row for row in table), event


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_table_of_metrics_has_them_all(metric: Any) -> None:
    sample = f"{metric.family}_total" if metric.kind == "counter" else metric.family
    (row,) = re.findall(rf"^\|[^|\n]*`{sample}`[^|\n]*\|([^|\n]*)\|", text_of(METRICS_PAGE), re.MULTILINE)
    told_apart = [*map(label_name, metric.attributes), *metric.known]
    if "as in the event" not in row:
        assert all(f"`{each}`" in row for each in told_apart if each and "." not in each), row


@pytest.mark.parametrize("error", errors.__all__)
def test_the_table_of_errors_has_them_all(error: str) -> None:
    assert re.search(rf"^\| `{error}` \|", text_of(ERRORS), re.MULTILINE)


@pytest.mark.parametrize(
    ("made", "document"),
    [(SQLiteConnectionPool, SETTINGS), (SQLiteDatabase, Path("docs/database.md"))],
    ids=["pool", "database"],
)
def test_the_table_of_settings_has_them_all_with_their_defaults(made: type, document: Path) -> None:
    rows = re.findall(r"^\| `(\w+)` \|([^|\n]*)\|", text_of(document), re.MULTILINE)
    told = {name: default.strip(" `").replace(" ", "") for name, default in rows}
    for name, parameter in inspect.signature(made).parameters.items():
        assert name in told, f"{document} does not tell of {name}"
        # A name of none is one that is made up, and the table says how.
        if name != "name" and not callable(parameter.default):
            assert told[name] == str(parameter.default), name
