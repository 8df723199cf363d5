"""How the project writes: no words that have a plainer one, and no sentence of more than thirty words."""

from __future__ import annotations

import ast
import itertools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dashboards.render.board import board_files, panels, read

from .support.documents import DOCUMENTS, FENCED, ROOT, text_of

# A word, and what to write instead. Of words that are also good English elsewhere, only the phrase that is meant.
WORDS = {
    r"lend|lends|lent|lending": "acquire, release, in use",
    r"(give|gives|gave|given|giving|take|takes|took|taken|taking)( \w+){0,2} back": "release, roll back",
    r"get one's own|gets its own turn": "acquire",
    r"errand|errands|tenancy|tenancies": "lease",
    r"who has it|who queues": "holder, waiter",
    r"in stock|do without|does without": "inventory, remove",
    r"adopt|adopts|adopted": "attach",
    r"mailbox|mailboxes|is back already": "job, completion",
    r"turnstile|turnstiles|let out|held back": "limiter, started, delayed",
    r"ledger|ledgers|absorb|absorbs|absorbed": "counts",
    r"is told|are told|told of|tells of|tell of|told apart": "emit an event, record a metric, log a record",
    r"condemned": "closing, evicted",
    r"harry|harries|harried": "interrupt",
    r"at rest": "idle",
    r"nobody|whoever|somebody": "caller, waiter, holder, subscriber",
    r"whatever becomes of|what becomes of": "the result",
    r"again and again|time and again": "repeatedly",
    r"(fold|folds|folded|folding)( it)? (in|into)": "checkpoint",
    r"for ever": "without limit",
    r"neck and neck": "close",
    r"one's turn": "wait for the writer",
}
PATTERN = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)
LONGEST = 30
# What people read besides documents: Python whose strings are messages, and files that they read or copy as they are.
PYTHON = ("aiosqlitepool", "dashboards")
TEXTS = sorted(
    path.relative_to(ROOT)
    for pattern in (
        "aiosqlitepool/debug/page/*.html",
        "aiosqlitepool/debug/page/*.js",
        "docker-compose.yml",
        "examples/**/*.py",
        "metrics/*.yml",
    )
    for path in ROOT.glob(pattern)
)


def prose(document: Path) -> str:
    """Its text without code."""
    return re.sub(r"`[^`\n]+`", "code", FENCED.sub("", text_of(document)))


def found_in(text: str) -> list[str]:
    """The words of the list in a text, on one line."""
    return [found[0] for found in PATTERN.finditer(re.sub(r"\s+", " ", text))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_a_document_uses_the_plain_word(document: Path) -> None:
    assert found_in(prose(document)) == []


@pytest.mark.parametrize("text", TEXTS, ids=str)
def test_an_alert_an_example_and_the_debug_page_use_the_plain_word(text: Path) -> None:
    assert found_in(text_of(text)) == []


def messages(folder: str) -> Iterator[tuple[str, str]]:
    """The texts of a folder that users may read: all strings but docstrings."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(each.value) for each in ast.walk(tree) if isinstance(each, ast.Expr)}
        for each in ast.walk(tree):
            if isinstance(each, ast.Constant) and isinstance(each.value, str) and id(each) not in docstrings:
                yield str(path.relative_to(ROOT)), each.value


@pytest.mark.parametrize("folder", PYTHON)
def test_a_message_uses_the_plain_word(folder: str) -> None:
    assert [(path, text) for path, text in messages(folder) if found_in(text)] == []


def notes(folder: str) -> Iterator[tuple[str, str]]:
    """The docstrings and comments of a folder; lines of comments that follow each other are one text."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        for each in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant):
                yield name, str(each.value.value)
        with path.open("rb") as source:
            comments = [each for each in tokenize.tokenize(source.readline) if each.type == tokenize.COMMENT]
        for _, block in itertools.groupby(enumerate(comments), lambda each: each[1].start[0] - each[0]):
            yield name, " ".join(comment.string.lstrip("# ") for _, comment in block)


@pytest.mark.parametrize("folder", PYTHON)
def test_a_docstring_and_a_comment_use_the_plain_word(folder: str) -> None:
    found = list(notes(folder))
    assert len(found) > 100
    assert [(path, text) for path, text in found if found_in(text)] == []


def test_comments_and_docstrings_are_found(tmp_path: Path) -> None:
    source = '"""It is\nlent."""\n\nvalue = "lent"  # one\n# two\n\n# given\n# back\n'
    (tmp_path / "module.py").write_text(source, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{__name__}.ROOT", tmp_path)
        texts = [text for _, text in notes(".")]
    assert texts == ["It is\nlent.", "one two", "given back"]


def sentences(text: str) -> list[str]:
    """Its sentences; a cell of a table and an item of a list end one."""
    links = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    parts = re.split(r"\n\s*\n|\n(?=\s*[-*|#])|(?<!\\)\||(?<=[.!?:]) |(?<=[.!?:]\*\*) |(?<=[.!?:])\n", links)
    return [" ".join(part.split()) for part in parts if part.strip()]


def long_sentences(text: str) -> list[str]:
    """Those of more than thirty words."""
    return [each for each in sentences(text) if len(re.findall(r"\w[\w'-]*", each)) > LONGEST]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_no_sentence_of_a_document_has_more_than_thirty_words(document: Path) -> None:
    assert long_sentences(prose(document)) == []


def annotations() -> Iterator[str]:
    """What alerts say."""
    groups = yaml.safe_load(text_of(Path("metrics/alerts.yml")))["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        yield from (re.sub(r"\{\{.*?\}\}", "value", rule["annotations"][each]) for each in ("summary", "description"))


def test_no_sentence_of_an_alert_or_a_board_has_more_than_thirty_words() -> None:
    boards = [panel["description"] for file in board_files() for panel in panels(read(file))]
    said = [*annotations(), *boards]
    assert len(said) > 100
    assert [long for text in said for long in long_sentences(text)] == []


def test_the_readme_has_at_most_300_lines() -> None:
    assert len(text_of(Path("README.md")).splitlines()) <= 300


@pytest.mark.parametrize("text", ["The pool lends a connection.", "It is given\nback.", "Nobody waits."])
def test_the_check_finds_a_word_of_the_list(text: str) -> None:
    assert found_in(text)
