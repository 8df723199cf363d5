"""Every Markdown file: its links lead somewhere, and it names no place of one machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .support.documents import DOCUMENTS, FENCED, ROOT, anchors, is_secure_address, links_in, text_of

LINKS = sorted({(document, link) for document in DOCUMENTS for link in links_in(document)})
INNER = [(document, link) for document, link in LINKS if not re.match(r"[a-z][a-z+]*:", link)]
OUTER = sorted(
    {(document, link) for document, link in LINKS if (document, link) not in INNER}
    # Also those that are only written down.
    | {(document, link) for document in DOCUMENTS for link in re.findall(r"https?://[^\s`)>\"',;]+", text_of(document))}
)


def test_the_documents_are_found() -> None:
    assert {Path("README.md"), Path("CONTRIBUTING.md"), Path("CHANGELOG.md"), Path("SECURITY.md")} <= set(DOCUMENTS)
    assert any(anchor for document in DOCUMENTS for anchor in anchors(ROOT / document))
    assert INNER
    assert OUTER


@pytest.mark.parametrize(("document", "link"), INNER, ids=str)
def test_a_link_leads_somewhere(document: Path, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (ROOT / document).parent / path if path else ROOT / document
    assert target.exists(), f"{document} links to {link}"
    assert target.resolve().is_relative_to(ROOT), f"{document} links to {link}, out of the repository"
    if anchor:
        assert target.suffix == ".md", f"{document} links to {link}, whose anchors nobody knows"
        assert anchor in anchors(target), f"{target.name} has no heading #{anchor}"


@pytest.mark.parametrize(("document", "link"), OUTER, ids=str)
def test_a_link_out_of_the_repository_is_a_secure_address(document: Path, link: str) -> None:
    assert is_secure_address(link), f"{document} links to {link}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_a_document_names_no_place_of_one_machine(document: Path) -> None:
    text = text_of(document)
    # Where a checkout lies, and where an index is: each reader has their own.
    assert not re.findall(r"(?<![\w./])/(?:home|root|work|Users|tmp)/[\w.-]+", text)
    assert not re.findall(r"--(?:extra-)?index-url|file:///|/simple/", text)


def names_in_trees() -> list[tuple[Path, str]]:
    """The files and folders that are named in drawings of the house, with the folder that each stands in."""
    found = []
    for document in DOCUMENTS:
        for _, language, body in FENCED.findall(text_of(document)):
            if language or not re.match(r"\S+/(\s|$)", body):
                continue
            folders = {0: document.parent}
            for line in body.splitlines():
                depth, names = len(line) - len(line.lstrip()), re.split(r" {2,}", line.strip())[0]
                above = folders[max(each for each in folders if each <= depth)]
                found += [(above, name) for name in re.findall(r"[\w.]+/?", names)]
                folders = {each: folder for each, folder in folders.items() if each <= depth}
                folders[depth + 1] = above / names.partition(" ")[0]
    return found


@pytest.mark.parametrize(("folder", "name"), names_in_trees(), ids=str)
def test_a_drawing_of_the_house_names_what_is_there(folder: Path, name: str) -> None:
    assert (ROOT / folder / name).exists() or (ROOT / folder / f"{name}.py").exists(), f"{folder} has no {name}"
