"""How Sphinx makes the documentation: the README, the pages here, and the reference out of the docstrings."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

from aiosqlitepool import __version__

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

project = "aiosqlitepool"
author = "The aiosqlitepool authors"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
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
    ("py:.*", r"(collections|asyncio|aiosqlite\.|contextvars|contextlib|typing|logging|types|enum|abc)\b.*"),
    ("py:.*", r"(os|pathlib|sqlite3)\b.*"),
    ("py:.*", r"(prometheus_client|opentelemetry)\b.*"),
    ("py:.*", r"(C|E|R|T|Ts|Any|Callable|Awaitable|Iterable|Sequence|Context|ClassVar|Literal|Protocol|Generic|Enum)"),
    ("py:.*", r"(Detach|Handler|CloseReason|AcquirePath|RollbackCause|Scope|Receive|Send)"),
    (
        "py:.*",
        r"aiosqlitepool\.(bus|copying|database|driver|events|lease|pool|settings|testing)\.[\w.]+|Lease|Connection|Adapter",
    ),
    ("py:.*", r"(CollectorRegistry|MeterProvider|TracerProvider)"),
]

# Documents of the repository that are pages here, and which.
PAGES = {"README.md": "docs/index.md", "CHANGELOG.md": "docs/changelog.md", "CONTRIBUTING.md": "docs/contributing.md"}

html_theme = "furo"
html_title = f"aiosqlitepool {release}"
html_static_path = ["static", "images"]
html_css_files = ["reference.css"]
html_copy_source = False
html_show_sourcelink = False


def include_documents(app: Sphinx, page: str, source: list[str]) -> None:
    """Put a document of the repository where a page says `{{ document NAME }}`, with links that lead on from there."""
    included = re.fullmatch(r"\{\{ document (\S+) \}\}(.*)", source[0], re.DOTALL)
    here = DOCS / f"{page}.md"
    source[0] = adapted(ROOT / included[1], here) + included[2] if included else relinked(source[0], here, here)


def adapted(document: Path, page: Path) -> str:
    """Its text, as a page."""
    # HTML is passed on as it is; Sphinx itself takes care of pictures that are Markdown.
    text = document.read_text(encoding="utf-8").replace('="docs/images/', '="_static/')
    text = text.replace("](docs/images/", "](images/")
    # A block that a test reads says so in braces, which are no language.
    return re.sub(r"^```python \{.*\}$", "```python", relinked(text, document, page), flags=re.MULTILINE)


def relinked(text: str, document: Path, page: Path) -> str:
    """The text of a document with its links leading from a page; what is no page here is named, not linked."""

    def link(found: re.Match[str]) -> str:
        words, target, anchor = found.groups(default="")
        path = (document.parent / target).resolve()
        path = ROOT / PAGES.get(str(path.relative_to(ROOT)), path)
        return f"[{words}]({os.path.relpath(path, page.parent)}{anchor})" if path.is_relative_to(DOCS) else words

    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)#\n]+)(#[^)\n]*)?\)", link, text)


def setup(app: Sphinx) -> None:
    """Tell Sphinx of what is ours."""
    app.connect("source-read", include_documents)
