"""SQL as text that may be shown: on one line, and with `?` for each literal, so that no value of a user gets into a
metric, a log or a page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

__all__ = [
    "GAP",
    "LONGEST_READ",
    "PLAN_WARNING",
    "READS",
    "first_word",
    "normalized",
    "operation_of",
    "plan_warnings",
    "summary_of",
]

# Characters of a normalized statement, and of a text that is looked at.
_LONGEST: Final = 2_000
LONGEST_READ: Final = 10_000

# The first words of statements that read. WITH may begin any.
READS: Final = frozenset({"SELECT", "VALUES", "WITH"})

# What SQLite skips before a token. Atomic: a comment ends at the first "*/", also if the rest does not match then.
GAP: Final = r"(?>(?:[\s;\ufeff]|--[^\n]*|/\*.*?(?:\*/|\Z))*)"
_FIRST_WORD: Final = re.compile(rf"{GAP}([a-z]+)\b", re.IGNORECASE | re.DOTALL | re.ASCII)

_TOKENS: Final = re.compile(
    r"""
      (?P<space> (?: \s | --[^\n]* | /\*.*?(?:\*/|\Z) )+ )
    | (?P<literal> [xX]?'(?:[^']|'')*(?:'|\Z) | (?<![\w$@:?.])\.?[0-9](?:[eE][+-]?[0-9]|[\w.])* )
    # A quoted name, or what SQLite takes for a string where there is no such name: kept only where a name must stand.
    | (?P<name> (?:(?<=\.)|(?<=from\ )|(?<=join\ )|(?<=into\ )|(?<=table\ )|(?<=update\ )) "[^"]*" | "[^"]*"(?=\.)
                | \[[^\]'"]*\] | `[^`'"]*` )
    | (?P<quoted> "(?:[^"]|"")*(?:"|\Z) | \[[^\]]*(?:\]|\Z) | `[^`]*(?:`|\Z) )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_LISTS: Final = re.compile(r"\bIN \(\?(?:, ?\?)+\)", re.IGNORECASE)
_ROWS: Final = re.compile(r"(\([?, ]+\))(?:, ?\1)+")
_PRAGMA: Final = re.compile(r"(PRAGMA (?:[\w?\"`\[\]]+ ?\. ?)?[\w?\"`\[\]]+) ?[=(].*", re.IGNORECASE | re.DOTALL)
# The only FROM before a value.
_DISTINCT: Final = re.compile(r'(\bDISTINCT FROM )"[^"]*"\??', re.IGNORECASE)
_TARGET: Final = re.compile(
    r"\b(?:(?<!DISTINCT )FROM|INTO|UPDATE|TABLE|INDEX|VIEW|TRIGGER)\s+(?!\()(?:OR\s+\w+\s+|IF\s+(?:NOT\s+)?EXISTS\s+)*"
    r"(?:[\w?]+\.|\"[^\"]*\"\.)?(\w+|\"[^\"]*\"|\[[^\]]*\]|`[^`]*`)",
    re.IGNORECASE,
)
# What a statement may begin with: a label of metrics, which must not take any word that a program sends.
# fmt: off
_OPERATIONS: Final = frozenset({
    "ALTER", "ANALYZE", "ATTACH", "BEGIN", "COMMIT", "CREATE", "DELETE", "DETACH", "DROP", "END", "EXPLAIN", "INSERT",
    "PRAGMA", "REINDEX", "RELEASE", "REPLACE", "ROLLBACK", "SAVEPOINT", "SELECT", "UPDATE", "VACUUM", "VALUES",
})
# fmt: on
# Between a line of a query plan and what makes it slow.
PLAN_WARNING: Final = "  <-- "
# Characters of a summary; OpenTelemetry's limit is 255.
_LONGEST_SUMMARY: Final = 100
_WORD: Final = re.compile(r"\w+")
# Not the function replace().
_CHANGES: Final = re.compile(r"\b(INSERT|REPLACE|UPDATE|DELETE)\b(?! ?\()", re.IGNORECASE)


def normalized(sql: str) -> str:
    """Return a statement on one line, without comments, with `?` for each literal, of at most 2,000 characters."""
    return _known(sql) if len(sql) <= _LONGEST else _normalize(sql)  # a longer one is not kept


def _normalize(sql: str) -> str:
    text = _TOKENS.sub(_replacement, sql[:LONGEST_READ]).strip(" ;")
    text = _DISTINCT.sub(r"\1?", _PRAGMA.sub(r"\1 = ?", text))
    text = _ROWS.sub(r"\1, ...", _LISTS.sub("IN (?, ...)", text))[:_LONGEST]
    return text.encode("utf-8", "replace").decode()  # half of a surrogate pair cannot be written anywhere


_known = lru_cache(1_000)(_normalize)


def _replacement(found: re.Match[str]) -> str:
    kind = found.lastgroup
    return " " if kind == "space" else found[0] if kind == "name" else "?"


def first_word(sql: str) -> str:
    """Return the first word of a statement in capitals, behind comments; empty if it does not begin with a word."""
    found = _FIRST_WORD.match(sql)
    return "" if found is None else found[1].upper()


def operation_of(statement: str) -> str:
    """Return what a normalized statement does: its first word in capitals, what follows a WITH clause, or "OTHER"."""
    return _operation(statement)[0]


@lru_cache(1_000)
def summary_of(statement: str) -> str:
    """Return the operation of a normalized statement and the first table that it names: "SELECT orders"."""
    operation, start = _operation(statement)
    found = _TARGET.search(statement, start)
    table = "" if found is None else found[1].strip('"`[]')
    return f"{operation} {table}".strip()[:_LONGEST_SUMMARY]


def _operation(statement: str) -> tuple[str, int]:
    """Return the operation, and where the statement begins that has it: a change stands behind its WITH clause."""
    found = _WORD.match(statement)
    word = "" if found is None else found[0].upper()
    if word == "WITH":
        found = _CHANGES.search(statement)
        return ("SELECT", 0) if found is None else (found[1].upper(), found.start())
    return word if word in _OPERATIONS else "OTHER", 0


def plan_warnings(plan: Iterable[str]) -> tuple[str, ...]:
    """Return what makes a query plan slow, from its marked lines, each once: ("full scan of orders",)."""
    return tuple(dict.fromkeys(line.partition(PLAN_WARNING)[2] for line in plan if PLAN_WARNING in line))
