"""Every Markdown file: its links lead somewhere, and its commands name what exists."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What other tools put here is not the project's; a checkout without git has these documents too.
FOREIGN = {".venv", ".matrix", ".demo", ".pytest_cache", ".cache", "node_modules", "build", "dist", "site"}
DOCUMENTS = sorted(
    path.relative_to(ROOT) for path in ROOT.rglob("*.md") if not FOREIGN & set(path.relative_to(ROOT).parts)
)
LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s\"[^\"]*\")?\)|(?:src|srcset|href)=\"([^\"]+)\"")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^(```+)[^\n]*\n.*?^\1\s*$", "", text, flags=re.DOTALL | re.MULTILINE))


def code_of(text: str) -> list[str]:
    """The lines of its shell blocks without their comments, and its inline code."""
    blocks = re.findall(r"^```(?:sh|shell|bash|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line.partition("#")[0] for block in blocks for line in block.splitlines()]
    return [*lines, *re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))]


@cache
def anchors(path: Path) -> set[str]:
    """What GitHub makes of the headings, in order: a second one of the same words gets -1."""
    # A page of the documentation may hold a document of the repository.
    text = re.sub(r"\{\{ document (\S+) \}\}", lambda included: (ROOT / included[1]).read_text(), path.read_text())
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?)\s*$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = 0
        while anchor in found:
            number += 1
            anchor = f"{slug}-{number}"
        found.add(anchor)
    return found


def found_in(pattern: str) -> list[tuple[Path, str]]:
    """What the pattern's group finds in the commands of each document."""
    found = {
        (document, each)
        for document in DOCUMENTS
        for code in code_of((ROOT / document).read_text())
        for each in re.findall(pattern, code)
    }
    return sorted(found)


LINKS = sorted(
    {
        (document, link or attribute)
        for document in DOCUMENTS
        for link, attribute in LINK.findall(without_code((ROOT / document).read_text()))
        if not re.match(r"[a-z][a-z+]*:", link or attribute)
    }
)


def test_the_documents_are_found() -> None:
    assert {Path("README.md"), Path("CONTRIBUTING.md"), Path("CHANGELOG.md"), Path("SECURITY.md")} <= set(DOCUMENTS)
    assert any(anchor for document in DOCUMENTS for anchor in anchors(ROOT / document))
    assert LINKS


@pytest.mark.parametrize(("document", "link"), LINKS, ids=str)
def test_a_link_leads_somewhere(document: Path, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (ROOT / document).parent / path if path else ROOT / document
    assert target.exists(), f"{document} links to {link}"
    assert target.resolve().is_relative_to(ROOT), f"{document} links to {link}, out of the repository"
    if anchor and target.suffix == ".md":
        assert anchor in anchors(target), f"{target.name} has no heading #{anchor}"


MADE = found_in(r"(?:^|[\s;&(])make ([a-z][a-z-]*)")


@pytest.mark.parametrize(("document", "target"), MADE, ids=str)
def test_what_is_to_be_made_has_a_target(document: Path, target: str) -> None:
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE), document


RUN = found_in(r"python3? -m aiosqlitepool ([a-z][a-z-]*)")


@pytest.mark.parametrize(("document", "command"), RUN, ids=str)
def test_a_command_exists_and_helps(document: Path, command: str) -> None:
    line = [sys.executable, "-m", "aiosqlitepool", command, "--help"]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, ""), document
    assert "usage:" in ran.stdout


INSTALLED = found_in(r"pip install .*?aiosqlitepool\[([a-z, -]+)\]")


@pytest.mark.parametrize(("document", "extras"), INSTALLED, ids=str)
def test_an_extra_to_be_installed_exists(document: Path, extras: str) -> None:
    assert {each.strip() for each in extras.split(",")} <= set(EXTRAS), document


def test_every_target_is_told_of_by_make_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (\S+)", makefile, re.MULTILINE))
    helped = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
    assert set(re.findall(r"^  make (\S+) +\S+ \S+", helped, re.MULTILINE)) == phony


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_a_document_names_no_place_of_one_machine(document: Path) -> None:
    text = (ROOT / document).read_text()
    # Where a checkout lies, and where an index is: each reader has their own.
    assert not re.findall(r"(?<![\w./])/(?:home|root|work|Users|tmp)/[\w.-]+", text)
    assert not re.findall(r"--(?:extra-)?index-url|file:///|/simple/", text)
