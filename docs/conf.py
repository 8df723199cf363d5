"""How Sphinx builds the documentation: pages, documents of the repository, and the reference from docstrings."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

from aiosqlitepool import __version__

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

project = "aiosqlitepool"
author = "The aiosqlitepool authors"
copyright = author
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["screenshot_debug.py"]
# Docstrings write `names` as Markdown does; what is not a name of ours is shown as code all the same.
default_role = "code"

myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 4

autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "exclude-members": "__init__, __new__"}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
add_module_names = False
toc_object_entries_show_parents = "hide"

# Other projects, type variables and names of types lead nowhere here.
nitpick_ignore_regex = [
    ("py:.*", r"(sqlalchemy|AsyncEngine|URL|Target|ConnectionPoolEntry)\b.*"),
    (
        "py:.*",
        r"(collections|asyncio|aiosqlite\.|contextvars|contextlib|typing|logging|types|enum|abc)\b.*",
    ),
    ("py:.*", r"(os|pathlib|sqlite3)\b.*"),
    ("py:.*", r"(prometheus_client|opentelemetry)\b.*"),
    (
        "py:.*",
        r"(C|E|R|T|Ts|Any|Callable|Awaitable|Iterable|Sequence|Context|ClassVar|Literal|Protocol|Generic|Enum)",
    ),
    ("py:.*", r"(Detach|Handler|CloseReason|AcquirePath|RollbackCause|Scope|Receive|Send)"),
    (
        "py:.*",
        r"aiosqlitepool\.(bus|copying|database|driver|events|lease|pool|settings|testing)\.[\w.]+|Lease|Connection|Adapter",
    ),
    ("py:.*", r"(CollectorRegistry|MeterProvider|TracerProvider)"),
]

# Documents of the repository that are pages here, and which.
PAGES = {
    "README.md": "docs/index.md",
    "CHANGELOG.md": "docs/changelog.md",
    "CONTRIBUTING.md": "docs/contributing.md",
    "metrics/runbook.md": "docs/runbook.md",
}
# Where all other files of the repository can be read.
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]["urls"]["Repository"]

html_theme = "furo"
html_title = f"aiosqlitepool {release}"
html_static_path = ["static", "images"]
html_css_files = ["reference.css"]
html_copy_source = False
html_show_sourcelink = False


def include_documents(app: Sphinx, page: str, source: list[str]) -> None:
    """Put a document where a page says `{{ document NAME }}`, with links that lead on from here."""
    included = re.fullmatch(r"\{\{ document (\S+) \}\}(.*)", source[0], re.DOTALL)
    here = DOCS / f"{page}.md"
    if included:
        document = ROOT / included[1]
        source[0] = (
            adapted(document.read_text(encoding="utf-8"), document, here) + included[2]
        )
    else:
        source[0] = adapted(source[0], here, here)


def adapted(text: str, document: Path, page: Path) -> str:
    """The text of a document, as a page."""
    # HTML is passed on as it is; Sphinx itself takes care of pictures that are Markdown.
    text = text.replace('="images/', '="_static/')
    # A block that a test reads says so in braces, which are no language.
    return re.sub(
        r"^```python \{.*\}$",
        "```python",
        relinked(text, document, page),
        flags=re.MULTILINE,
    )


def relinked(text: str, document: Path, page: Path) -> str:
    """The text of a document with links to pages, and to the repository for files that are no page."""

    def link(found: re.Match[str]) -> str:
        words, target, anchor = found.groups(default="")
        name = str((document.parent / target).resolve().relative_to(ROOT))
        path = ROOT / PAGES.get(name, name)
        leads = (
            os.path.relpath(path, page.parent)
            if path.is_relative_to(DOCS)
            else f"{REPOSITORY}/blob/main/{name}"
        )
        return f"[{words}]({leads}{anchor})"

    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)#\n]+)(#[^)\n]*)?\)", link, text)


def setup(app: Sphinx) -> None:
    """Register the reader of included documents."""
    app.connect("source-read", include_documents)
