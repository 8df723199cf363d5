"""How Sphinx makes the documentation: the README, and the reference out of the docstrings."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

from aiosqlitepool import __version__

ROOT = Path(__file__).parent.parent

project = "aiosqlitepool"
author = "The aiosqlitepool authors"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["screenshot_debug.py"]
# Docstrings write `names` as Markdown does; what is not a name of ours is shown as code all the same.
default_role = "code"

myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 3

autodoc_class_signature = "separated"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": "__init__, __new__"}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
add_module_names = False
toc_object_entries_show_parents = "hide"

# Names of other projects, and type variables, lead nowhere here.
nitpick_ignore_regex = [
    ("py:.*", r"(collections|asyncio|aiosqlite\.|contextvars|typing|logging|types|enum|abc|prometheus_client|opentelemetry|pathlib)\b.*"),
    ("py:.*", r"(C|E|T|Any|Callable|Awaitable|Iterable|Sequence|Context|ClassVar|Literal|Task|Logger|Protocol|Generic|Enum)"),
    ("py:.*", r"(Detach|Handler|CloseReason|AcquirePath|RollbackCause|Scope|Receive|Send|Message)"),
    ("py:.*", r"aiosqlitepool\.(bus|pool|testing|lease|driver|events|settings)\.\w+|Lease|Connection|Link|PoolState"),
    ("py:.*", r"(CollectorRegistry|MeterProvider|TracerProvider|SpanMode|Mode|\w*Collector)"),
]  # fmt: skip

html_theme = "furo"
html_title = f"aiosqlitepool {release}"
html_static_path = ["static", "images"]
html_css_files = ["reference.css"]
html_copy_source = False
html_show_sourcelink = False


def include_documents(app: Sphinx, page: str, source: list[str]) -> None:
    """Put a document of the repository where a page says `{{ document NAME }}`; its links lead to where that is here."""
    for name in re.findall(r"\{\{ document (\S+) \}\}", source[0]):
        text = (ROOT / name).read_text(encoding="utf-8")
        # HTML is passed on as it is; Sphinx itself takes care of pictures that are Markdown.
        text = text.replace('="docs/images/', '="_static/').replace("(docs/images/", "(images/")
        text = text.replace("(CHANGELOG.md)", "(changelog.md)")
        text = text.replace("(CONTRIBUTING.md)", "(contributing.md)").replace("(README.md)", "(index.md)")
        # What is not a page here is named, not linked.
        text = re.sub(
            r"\[([^\]\n]+)\]\((?!https?:|#|images/|changelog\.md|contributing\.md|index\.md)[^)\n]+\)", r"\1", text
        )
        # Blocks that a test reads say so in braces, which are no language.
        text = re.sub(r"^```python \{.*\}$", "```python", text, flags=re.MULTILINE)
        source[0] = source[0].replace(f"{{{{ document {name} }}}}", text)


def setup(app: Sphinx) -> None:
    """Tell Sphinx of what is ours."""
    app.connect("source-read", include_documents)
