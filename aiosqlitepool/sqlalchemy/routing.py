"""Which connection of a database a statement needs, by its text."""

from __future__ import annotations

import re
from typing import Final

from ..sql import first_word, normalized, operation_of

__all__ = ["needs_writer", "reads_schema"]

_READS: Final = frozenset({"SELECT", "VALUES", "EXPLAIN"})
_SCHEMA: Final = re.compile(r"\bsqlite_(?:temp_)?(?:master|schema)\b", re.IGNORECASE)


def needs_writer(sql: str) -> bool:
    """Whether a statement may write. A WITH clause is followed by what decides."""
    word = first_word(sql)
    if word == "PRAGMA":
        return "=" in sql
    return (operation_of(normalized(sql)) if word == "WITH" else word) not in _READS


def reads_schema(sql: str) -> bool:
    """Whether a statement reads what tables there are, which says nothing of the transaction: it may create them."""
    return first_word(sql) == "PRAGMA" or (_SCHEMA.search(sql) is not None)
