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
        "Idle is free, new opens a connection, queued waited for one to come back. Many new ones: connections end too "
        "soon, raise min_size or idle_timeout. Many queued ones: see Demand.",
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
        "All that acquired, and all that failed to. P99 up and P50 at nothing: bursts, or a few slow holders. All up: "
        "the pool is too small or something is stuck. A dot is a wait; click it for its trace. Alert: "
        "AiosqlitepoolWaitSlow.",
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
        "Do all wait a little, or a few for long?",
        "Two bands are two kinds of callers: those who find a connection and those who queue. The upper one's height "
        "is how long the holders take. A band at acquisition_timeout is callers that fail.",
        buckets(WAIT_TIME),
    )


def hold_heat() -> Panel:
    """How long connections were out, by bucket."""
    return heat(
        "Time out of the pool by duration",
        "Are there two kinds of holders?",
        "A second band far above the first is the work that makes others wait. If it can wait itself, give it a pool "
        "of its own.",
        buckets(USE_TIME),
    )


def create_heat() -> Panel:
    """How long opening took, by bucket."""
    return heat(
        "Creating by duration",
        "Is opening a connection slow?",
        "A band above 10 ms is a slow disk, or a factory that does more than its pragmas. A caller on the path new "
        "waits for all of it.",
        buckets(CREATE_TIME),
    )


def failures() -> Panel:
    """Who got none, and why."""
    return lines(
        "Failed acquires by type",
        "Who got no connection, and why?",
        "Timeouts: nothing came back in time. Rejected: max_waiting was reached. Cancelled: the caller gave up first, "
        "often a client that went away. Closed: the pool was shut under its callers. The rest are errors of "
        "connecting.",
        "cpm",
        # This one is counted from the start; the others have no series until the first.
        over_time(per_minute(TIMEOUTS), "timeout"),
        over_time(per_minute(WAIT_TIME, ERROR, where=f'{ERROR}!~"|timeout"'), f"{{{{{ERROR}}}}}"),
        names=("cancelled", "rejected", "closed"),
        bad=1,
    )
