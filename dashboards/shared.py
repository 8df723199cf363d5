"""Panels that both boards have, and the heatmaps of one."""

from __future__ import annotations

from aiosqlitepool.subscribers._metrics import ACQUIRES, CREATE_TIME, TIMEOUTS, USE_TIME, WAIT_TIME

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
        # Of several queries for one metric, Grafana asks for the exemplars of the first.
        over_time(quantile(0.5, WAIT_TIME), "P50", exemplars=True),
        over_time(quantile(0.9, WAIT_TIME), "P90"),
        over_time(quantile(0.99, WAIT_TIME), "P99"),
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


def hold_heat() -> Panel:
    """How long connections were out, by bucket."""
    return heat(
        "Use time by duration",
        "Are there two kinds of holders?",
        "A second band far above the first is the work that makes others wait. If that work is not urgent, give it a "
        "pool of its own.",
        buckets(USE_TIME),
    )


def create_heat() -> Panel:
    """How long opening took, by bucket."""
    return heat(
        "Creating by duration",
        "Is opening a connection slow?",
        "A band above 10 ms is a slow disk, or a factory that does more than set pragmas. An acquire by the path new "
        "includes this time.",
        buckets(CREATE_TIME),
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
