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
        "Do all wait a little, or a few for long?",
        "Two bands are two kinds of callers: those who find a connection and those who queue. The upper one's height "
        "is how long the holders take. A band at acquisition_timeout is callers that fail.",
        buckets(WAIT_TIME),
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
