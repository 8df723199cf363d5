"""Panels about what a program does to its pools: a loop that is blocked, connections that do not come back."""

from __future__ import annotations

from aiosqlitepool.subscribers._metrics import ABANDONED, INLINE_STALL, LEAKS, LOOP_LAG, STATEMENTS

from .frame import Row
from .panels import Panel, lines, now, over_time, ranking
from .queries import EACH, INSTANCE, LABEL, PLACE, SUMMARY, largest, per_minute, rate, so_far, worst

__all__ = ["row"]

_HOTTEST, _BARS = 10, 8


def row() -> Row:
    """The row of these panels."""
    return Row("What does the program do?", 7, [_loop(), _inline(), _leaks(), _leaks_by_label()])


def _loop() -> Panel:
    return lines(
        "Event loop",
        "Does the program block its event loop?",
        "The longest delay of a timer in the last 15 s. Above 100 ms: code computes or blocks without await, and every "
        "caller waits for it. It looks like a slow database, but it is not: find it with asyncio's debug mode.",
        "s",
        over_time(worst(_HOTTEST, largest(LOOP_LAG, *EACH)), INSTANCE),
        warn=0.1,
        bad=1.0,
    )


def _inline() -> Panel:
    return lines(
        "Statements",
        "Where do statements run?",
        "Per second. Thread: in a worker thread. Inline: short reads in the event loop's own thread, with "
        "inline_reads=True. Retried: they began there, were too long, and ran again in a thread: more than a few are "
        "wasted work. Stall (right axis): the longest time that they and BEGIN kept the loop, normally below 2 ms.",
        "ops",
        over_time(rate(STATEMENTS, PLACE), f"{{{{{PLACE}}}}}"),
        over_time(largest(INLINE_STALL), "stall"),
        names=STATEMENTS.known,
        right={"stall": "s"},
    )


def _leaks() -> Panel:
    return lines(
        "Leaks",
        "Are all connections released?",
        "Suspected: in use for longer than leak_threshold, or dropped without a release. Abandoned: still in use when "
        "the pool closed. The log record pool.checkout.leak_suspected names the holder. Alert: "
        "AiosqlitepoolConnectionHeldTooLong.",
        "cpm",
        over_time(per_minute(LEAKS), "suspected"),
        over_time(per_minute(ABANDONED), "abandoned"),
        bad=1,
    )


def _leaks_by_label() -> Panel:
    return ranking(
        "Leaks by label",
        "Which callers do not release their connections?",
        "Suspected leaks since the processes began, by the label and the last statement of the holder. The log record "
        "pool.checkout.leak_suspected and the debug page have the whole statement. Alert: "
        "AiosqlitepoolConnectionHeldTooLong.",
        "short",
        now(worst(_BARS, so_far(LEAKS, LABEL, SUMMARY, where=f'{LABEL}!=""')), f"{{{{{LABEL}}}}}: {{{{{SUMMARY}}}}}"),
    ).no_value("No lease with a label is suspected")
