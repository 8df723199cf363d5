"""The documentation as it is built: every link leads somewhere, and nothing is a copy of the README."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from .support.documents import DOCUMENTS, ROOT, anchors, is_secure_address, programs_in, text_of

REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
PAGES = [page for page in DOCUMENTS if page.parts[0] == "docs"]
# What is included, or listed from docstrings, begins with no program.
GUIDES = [page for page in PAGES if page.parts[1] != "reference" and "{{ document" not in text_of(page)]


class Page(HTMLParser):
    """The links and the anchors of an HTML file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Keep what leads away and what can be led to."""
        for name, value in attributes:
            if name in {"href", "src", "srcset"} and value:
                self.links.add(value)
            elif name == "id" and value:
                self.ids.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--nitpicky", "--fail-on-warning", "docs", str(built)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    return built


def broken(site: Path) -> Iterator[str]:
    """The links of the site that lead nowhere."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for link in page.links:
            if link.startswith(f"{REPOSITORY}/blob/main/"):
                name, _, anchor = link.removeprefix(f"{REPOSITORY}/blob/main/").partition("#")
                leads = (ROOT / name).exists() and (not anchor or anchor in anchors(ROOT / name))
            elif link.startswith(("https:", "http:")):
                leads = is_secure_address(link)
            elif link.startswith("data:"):
                leads = True  # a picture in the link itself
            else:
                name, _, anchor = unquote(link).partition("#")
                target = (path.parent / name.partition("?")[0]).resolve() if name else path
                leads = target.exists() and (not anchor or target not in pages or anchor in pages[target].ids)
            if not leads:
                yield f"{path.relative_to(site.resolve())}: {link}"


def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    assert len(list(site.rglob("*.html"))) >= len(PAGES)
    assert not sorted(broken(site))


@pytest.mark.parametrize("page", GUIDES, ids=str)
def test_a_page_begins_with_a_program_that_runs(page: Path) -> None:
    before, fence, rest = text_of(page).partition("```")
    assert fence
    assert rest.startswith("python\n")
    assert programs_in(page)
    assert before.count("\n## ") == 0


def test_the_landing_page_is_no_copy_of_the_readme() -> None:
    readme = set(text_of(Path("README.md")).splitlines())
    own = [line for line in text_of(Path("docs/index.md")).splitlines() if line.strip() and line not in readme]
    assert len(own) > 20


# Characters that a line of the site's column holds; the site wraps a longer one.
COLUMNS = 94


@pytest.mark.parametrize("page", [*GUIDES, Path("README.md")], ids=str)
def test_code_is_no_wider_than_its_column(page: Path) -> None:
    for program, printed in programs_in(page):
        assert [line for line in (program + (printed or "")).splitlines() if len(line) > COLUMNS] == []
