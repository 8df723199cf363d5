"""The Markdown files of the repository, and what is in them: links, anchors, programs and commands."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

__all__ = [
    "DOCUMENTS",
    "ROOT",
    "anchors",
    "commands_in",
    "is_secure_address",
    "links_in",
    "programs_in",
    "spoken_commands_in",
    "text_of",
]

ROOT = Path(__file__).parents[2]
# What other tools put here is not the project's; a checkout without git has these documents too.
FOREIGN = {".venv", ".matrix", ".next", ".demo", ".pytest_cache", ".cache", "node_modules", "build", "dist", "site"}
DOCUMENTS = sorted(
    path.relative_to(ROOT) for path in ROOT.rglob("*.md") if not FOREIGN & set(path.relative_to(ROOT).parts)
)
FENCED = re.compile(r"^(```+)([^\n]*)\n(.*?)^\1\s*$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s\"[^\"]*\")?\)|(?:src|srcset|href)=\"([^\"]+)\"|<(https?:[^>\s]+)>")


# Where a program of the reader's own answers.
LOOPBACK = {"localhost", "127.0.0.1"}


def is_secure_address(link: str) -> bool:
    """Whether it is a well-formed address that browsers reach by TLS, or one of the reader's own machine."""
    address = urlsplit(link)
    if re.search(r"[\s<>\\^`{|]", link) or not address.hostname:
        return False
    if address.hostname in LOOPBACK:
        return address.scheme in {"http", "https"}
    host = re.fullmatch(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}", address.hostname)
    return address.scheme == "https" and address.port is None and host is not None


def text_of(document: Path) -> str:
    """What is written in it."""
    return (ROOT / document).read_text(encoding="utf-8")


def links_in(document: Path) -> list[str]:
    """Where its links, pictures and autolinks lead."""
    prose = re.sub(r"`[^`\n]+`", "", FENCED.sub("", text_of(document)))
    return [next(filter(None, found)) for found in LINK.findall(prose)]


@cache
def anchors(path: Path) -> set[str]:
    """What GitHub makes of the headings, in order: a second one of the same words gets -1."""
    # A page of the documentation may hold a document of the repository.
    text = re.sub(r"\{\{ document (\S+) \}\}", lambda included: text_of(Path(included[1])), path.read_text())
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?)\s*$", FENCED.sub("", text), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = 0
        while anchor in found:
            number += 1
            anchor = f"{slug}-{number}"
        found.add(anchor)
    return found


def programs_in(document: Path) -> list[tuple[str, str | None]]:
    """Its Python blocks that have no remark in braces, each with what it is said to print, if that follows at once."""
    blocks = re.findall(
        r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", text_of(document), re.DOTALL | re.MULTILINE
    )
    return [(program, printed or None) for program, printed in blocks]


def commands_in(document: Path) -> list[list[str]]:
    """The commands of its shell blocks, in words, without comments."""
    blocks = [body for _, language, body in FENCED.findall(text_of(document)) if language in {"sh", "bash", "console"}]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def spoken_commands_in(document: Path) -> list[str]:
    """Its inline code, where commands are named in sentences."""
    return re.findall(r"`([^`\n]+)`", FENCED.sub("", text_of(document)))
