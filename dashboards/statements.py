"""Panels about the SQL that connections run. Both boards have them; what a subscriber must be asked for says so."""

from __future__ import annotations

from aiosqlitepool.subscribers._metrics import OPERATION_DURATION, SLOW_STATEMENTS, STATEMENT_TIME, USE_TIME

from .frame import Row
from .panels import Panel, lines, now, over_time, ranking
from .queries import LABEL, OPERATION, PLAN_WARNING, SUMMARY, busy, in_range, per_minute, quantile, worst

__all__ = ["row"]

# Bars, and curves: at each moment so many, so that there are more of them over time.
_BARS, _CURVES = 8, 5


def row() -> Row:
    """All of them, beside each other."""
    return Row("What runs?", 9, [_by_time(), _by_operation(), _slow(), _by_label()], widths=(7, 5, 6, 6))


def _by_time() -> Panel:
    """Which statements take the most time."""
    return ranking(
        "Time by statement",
        "What do connections run?",
        "The total time of each in the range, by operation and first table. A statement far above the rest is worth an "
        "index, a smaller result or a cache, even if no single run is slow. The debug page has the whole statement. "
        "Empty: give PrometheusSubscriber statement_summaries=20.",
        "s",
        now(worst(_BARS, in_range(STATEMENT_TIME, SUMMARY)), f"{{{{{SUMMARY}}}}}"),
    ).no_value("Needs statement_summaries=20 of the subscriber")


def _by_operation() -> Panel:
    """How long statements take."""
    return lines(
        "P99 by operation",
        "Do statements become slow?",
        "Only the time in SQLite, without any wait. One operation rises: see Slow statements. All rise: the disk or "
        "the processor. COMMIT rises: the disk syncs slowly. BEGIN rises: another process writes.",
        "s",
        over_time(worst(_CURVES, quantile(0.99, OPERATION_DURATION, OPERATION)), f"{{{{{OPERATION}}}}}"),
        warn=0.1,
        bad=1.0,
    )


def _slow() -> Panel:
    """Which statements were slow, and what their query plans warn of."""
    return lines(
        "Slow statements",
        "Which statements are slow, and why?",
        "Those that took longer than the pool's slow_statement (100 ms), with the warnings of the query plan. Full "
        "scan: create an index for the WHERE. Temporary B-tree: create an index for the ORDER BY. The whole plan is in "
        "the span and in the log record pool.statement.slow. Alert: AiosqlitepoolSlowStatements.",
        "cpm",
        over_time(
            worst(_CURVES, per_minute(SLOW_STATEMENTS, SUMMARY, PLAN_WARNING)),
            f"{{{{{SUMMARY}}}}} {{{{{PLAN_WARNING}}}}}",
        ),
        warn=2,
        bad=30,
        empty="No statement was slow",
    )


def _by_label() -> Panel:
    """For whom connections are out."""
    return lines(
        "Connections in use by label",
        "Which callers hold connections?",
        "The mean number in use for each label, by Little's law. The label that rises when callers begin to wait is "
        "the cause: shorten its use, or give it a pool of its own. Acquires without a label are not shown. Empty: give "
        "labels, and the subscriber by_label=True.",
        "short",
        over_time(worst(_CURVES, busy(USE_TIME, LABEL, where=f'{LABEL}!=""')), f"{{{{{LABEL}}}}}"),
        stacked=True,
        empty="Needs by_label=True of the subscriber",
    )
