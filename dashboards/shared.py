"""Panels that both boards have."""

from __future__ import annotations

from aiosqlitepool.subscribers._metrics import ACQUIRES, TIMEOUTS, WAIT_TIME

from .panels import Panel, heat, lines, over_time
from .queries import ERROR, PATH, buckets, per_minute, quantile, rate


def paths() -> Panel:
    """How callers came by their connections."""
    return lines(
        "Acquires by path",
        "Do callers find an idle connection?",
        "Idle: at once. New: the pool opened a connection. Queued: the caller waited for a release. Many new ones: "
        "connections are closed too soon, raise min_size or idle_timeout. Many queued ones: see Demand.",
        "ops",
        over_time(rate(ACQUIRES, PATH), f"{{{{{PATH}}}}}"),
        stacked=True,
        names=ACQUIRES.known,
    )


def waits() -> Panel:
    """How long callers waited, with dots that lead to traces."""
    return lines(
        "Waits",
        "How long do callers wait for a connection?",
        "All acquires, failed ones too. P99 high and P50 near zero: bursts, or a few slow holders. All high: the pool "
        "is too small, or a task is stuck. Each dot is one wait: click it for its trace. Alert: AiosqlitepoolWaitSlow.",
        "s",
        over_time(quantile(0.5, WAIT_TIME), "P50"),
        over_time(quantile(0.9, WAIT_TIME), "P90"),
        over_time(quantile(0.99, WAIT_TIME), "P99", exemplars=True),
        warn=0.1,
        bad=1.0,
    )


def wait_heat() -> Panel:
    """The same by bucket."""
    return heat(
        "Waits by duration",
        "Do all callers wait a little, or a few for long?",
        "Two bands are two kinds of callers: those that find an idle connection, and those that wait. The upper band "
        "shows how long holders take. A band at acquisition_timeout is callers that fail.",
        buckets(WAIT_TIME),
    )


def failures() -> Panel:
    """Who got none, and why."""
    return lines(
        "Failed acquires by type",
        "Which acquires failed, and why?",
        "Timeout: no connection was released in time. Rejected: max_waiting was reached. Cancelled: the caller was "
        "cancelled, often because a client disconnected. Closed: the pool was closed while callers waited. All others "
        "are errors of the factory.",
        "cpm",
        # This one is counted from the start; the others have no series until the first.
        over_time(per_minute(TIMEOUTS), "timeout"),
        over_time(per_minute(WAIT_TIME, ERROR, where=f'{ERROR}!~"|timeout"'), f"{{{{{ERROR}}}}}"),
        names=("cancelled", "rejected", "closed"),
        bad=1,
    )
