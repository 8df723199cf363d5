"""How many values of an attribute have series of their own: the first ones. Later ones are shown as "other".

A series lives as long as its process, and programs make up statements and labels without end.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from aiosqlitepool import Holder
from aiosqlitepool.events import StatementSlow

from ._attributes import OTHER
from ._metrics import Values

__all__ = ["MOST_ERRORS", "MOST_LABELS", "MOST_LEAKS", "MOST_SLOW", "PoolLimits"]

V = TypeVar("V", bound=Hashable)

# Types of errors, pairs of summary and plan warning, pairs of label and summary, and labels of leases, for one pool.
MOST_ERRORS = 20
MOST_SLOW = 20
MOST_LEAKS = 20
MOST_LABELS = 50
# What ends acquires without an exception's name.
_KNOWN_ERRORS = frozenset({"timeout", "cancelled", "rejected", "closed"})
# Characters of a value.
_LONGEST = 200


class PoolLimits:
    """Which values have series of their own, for the pools of one name.

    Each method belongs to one thread at a time: `summary`, and `label` in Prometheus, to the one that delivers a batch,
    the others to the loop's.
    """

    __slots__ = ("_errors", "_labels", "_leaks", "_slow", "_summaries")

    def __init__(self, statement_summaries: int = 0) -> None:
        # The value that OpenTelemetry's conventions have for all others.
        self._errors: _First[str] = _First(MOST_ERRORS, "_OTHER")
        self._labels: _First[str] = _First(MOST_LABELS, OTHER)
        self._leaks: _First[Values] = _First(MOST_LEAKS, (OTHER, ""))
        self._slow: _First[Values] = _First(MOST_SLOW, (OTHER, ""))
        self._summaries: _First[str] = _First(statement_summaries, OTHER if statement_summaries else "")

    def error(self, kind: str | None) -> str:
        """Return the value for the type of an error; "" for none. Safe in any thread."""
        return kind if kind in _KNOWN_ERRORS else self._errors.shown(kind) if kind else ""

    def label(self, label: str | None) -> str:
        """Return the value for the label of a lease; "" for none."""
        return "" if label is None else self._labels.shown(_sendable(label))

    def leak(self, holder: Holder) -> Values:
        """Return the values for a suspected leak: its label, and the summary of its last statement, or ""."""
        return self._leaks.shown((_sendable(holder.label or ""), holder.summary))

    def slow(self, event: StatementSlow) -> Values:
        """Return the values for a slow statement: its summary, and the first warning of its plan, or ""."""
        warning = next(iter(event.plan_warnings), "")
        return self._slow.shown((event.summary, _sendable(warning)))

    def summary(self, summary: str) -> str:
        """Return the value for the summary of a statement; "" if none is shown."""
        return self._summaries.shown(summary)


class _First(Generic[V]):
    """Shows the first `most` values as they are, and each later one as `other`."""

    __slots__ = ("_most", "_other", "_seen")

    def __init__(self, most: int, other: V) -> None:
        self._most = most
        self._other = other
        self._seen: set[V] = set()

    def shown(self, value: V) -> V:
        """Return what to show for this value."""
        if value not in self._seen:
            if len(self._seen) >= self._most:
                return self._other
            self._seen.add(value)
        return value


def _sendable(text: str) -> str:
    # One half of a surrogate pair would make whole scrapes and exports fail.
    return text[:_LONGEST].encode("utf-8", "replace").decode()
