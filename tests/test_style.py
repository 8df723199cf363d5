"""How the project writes: no words that have a plainer one, and no long sentences in the README."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

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
}
PATTERN = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)
LONGEST = 30
# Not rewritten yet.
LATER = {Path("metrics/runbook.md")}
# Messages that programs may look for.
KEPT = (
    "connection was lent in another event loop",
    " is not lent by pool ",
    "is taken back: ",
    "was given back to its pool",
)


def prose(document: Path) -> str:
    """Its text without code."""
    return re.sub(r"`[^`\n]+`", "code", FENCED.sub("", text_of(document)))


def found_in(text: str) -> list[str]:
    """The words of the list in a text, on one line."""
    return [found[0] for found in PATTERN.finditer(re.sub(r"\s+", " ", text))]


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if each not in LATER], ids=str)
def test_a_document_uses_the_plain_word(document: Path) -> None:
    assert found_in(prose(document)) == []


def messages() -> Iterator[tuple[str, str]]:
    """The texts of the package that users may read: all but docstrings."""
    for path in sorted((ROOT / "aiosqlitepool").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(each.value) for each in ast.walk(tree) if isinstance(each, ast.Expr)}
        for each in ast.walk(tree):
            if isinstance(each, ast.Constant) and isinstance(each.value, str) and id(each) not in docstrings:
                yield str(path.relative_to(ROOT)), each.value


def test_a_message_uses_the_plain_word() -> None:
    found = [(path, text) for path, text in messages() if found_in(text)]
    assert [(path, text) for path, text in found if not any(kept in text for kept in KEPT)] == []


def sentences(document: Path) -> list[str]:
    """Its sentences; a cell of a table and an item of a list end one."""
    links = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", prose(document))
    parts = re.split(r"\n\s*\n|\n(?=\s*[-*|#])|(?<!\\)\||(?<=[.!?:]) |(?<=[.!?:]\*\*) |(?<=[.!?:])\n", links)
    return [" ".join(part.split()) for part in parts if part.strip()]


def test_no_sentence_of_the_readme_has_more_than_thirty_words() -> None:
    long = [each for each in sentences(Path("README.md")) if len(re.findall(r"\w[\w'-]*", each)) > LONGEST]
    assert long == []


def test_the_readme_has_at_most_300_lines() -> None:
    assert len(text_of(Path("README.md")).splitlines()) <= 300


@pytest.mark.parametrize("text", ["The pool lends a connection.", "It is given\nback.", "Nobody waits."])
def test_the_check_finds_a_word_of_the_list(text: str) -> None:
    assert found_in(text)
