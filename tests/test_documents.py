"""Every Markdown file: its links lead somewhere, and it names no place of one machine."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .support.documents import DOCUMENTS, ROOT, anchors, links_in, text_of

LINKS = sorted({(document, link) for document in DOCUMENTS for link in links_in(document)})
INNER = [(document, link) for document, link in LINKS if not re.match(r"[a-z][a-z+]*:", link)]
OUTER = sorted(
    {(document, link) for document, link in LINKS if (document, link) not in INNER}
    # Also those that are only written down.
    | {(document, link) for document in DOCUMENTS for link in re.findall(r"https?://[^\s`)>\"',;]+", text_of(document))}
)
# Where a program of the reader's own answers.
LOOPBACK = {"localhost", "127.0.0.1"}


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
    address = urlsplit(link)
    assert address.hostname
    assert address.port is None or address.hostname in LOOPBACK
    if address.hostname not in LOOPBACK:
        assert address.scheme == "https", f"{document} links to {link}"
        assert re.fullmatch(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}", address.hostname), document
    assert not re.search(r"[\s<>\\^`{|]", link)


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_a_document_names_no_place_of_one_machine(document: Path) -> None:
    text = text_of(document)
    # Where a checkout lies, and where an index is: each reader has their own.
    assert not re.findall(r"(?<![\w./])/(?:home|root|work|Users|tmp)/[\w.-]+", text)
    assert not re.findall(r"--(?:extra-)?index-url|file:///|/simple/", text)
