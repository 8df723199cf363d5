"""Panels about transactions and the WAL, which only the pools of a `SQLiteDatabase` have; others say so."""

from __future__ import annotations

from grafana_foundation_sdk.builders import prometheus

from aiosqlitepool.subscribers._metrics import (
    BUSY_RETRIES,
    CHECKPOINTS,
    TRANSACTION_TIME,
    TRANSACTION_WAIT,
    WAL_SIZE,
    Metric,
)

from .panels import Panel, lines, over_time
from .queries import EACH, INSTANCE, KIND, OUTCOME, POOL, POOL_NAME, RESULT, largest, per_minute, quantile, rate, worst

__all__ = ["busy_retries", "checkpoints", "durations", "transactions", "waits", "waits_by_pool", "wal", "wal_by_pool"]

_HOTTEST = 10
_NONE = "No SQLiteDatabase among these pools"
_NO_WRITER = "Only the writer of a SQLiteDatabase has one"
# A WAL that checkpoints reach has 4 MB or a little more; the alerts begin at these.
_GROWN, _LARGE = 16e6, 64e6


def _percentiles(metric: Metric) -> list[prometheus.Dataquery]:
    return [over_time(quantile(percent / 100, metric), f"P{percent}") for percent in (50, 90, 99)]


# -- on both boards


def transactions() -> Panel:
    """How they ended."""
    return lines(
        "Transactions",
        "Do transactions commit?",
        "Per second, by outcome. Rolled_back: the program's own code raised or was cancelled. Failed: it could not "
        "begin or commit, mostly as the database was locked; its caller got the error. Alert: "
        "AiosqlitepoolTransactionsFailing.",
        "ops",
        over_time(rate(TRANSACTION_TIME, OUTCOME), f"{{{{{OUTCOME}}}}}"),
        names=TRANSACTION_TIME.known,
        stacked=True,
        empty=_NONE,
    )


# -- on the Overview


def waits_by_pool() -> Panel:
    """Which database's writers queue."""
    return lines(
        "Wait for a transaction",
        "Whose writers queue, and for how long?",
        "P99, from asking for a transaction to its beginning. One connection writes, so what is long here is the sum "
        "of the transactions in front: see Transaction duration of the pool in depth. Alert: "
        "AiosqlitepoolWriterQueueSlow.",
        "s",
        over_time(worst(_HOTTEST, quantile(0.99, TRANSACTION_WAIT, POOL)), POOL_NAME),
        warn=0.1,
        bad=1.0,
        empty=_NONE,
    )


def wal_by_pool() -> Panel:
    """Which database's WAL is not folded in."""
    return lines(
        "WAL",
        "Is what is written folded into the database?",
        "The largest of each. Up to about 4 MB is normal. One that only grows is pinned by a reader, or its writer "
        "never pauses: see Checkpoints of the pool in depth. Alerts: AiosqlitepoolWalLarge, "
        "AiosqlitepoolReaderPinsWal.",
        "decbytes",
        over_time(worst(_HOTTEST, largest(WAL_SIZE, POOL)), POOL_NAME),
        warn=_GROWN,
        bad=_LARGE,
        empty=_NONE,
    )


# -- of one pool


def durations() -> Panel:
    """How long they take."""
    return lines(
        "Transaction duration",
        "How long does one transaction keep the others waiting?",
        "From BEGIN to its end. P99 up: a block that awaits something else while it is open, or one long job. P50 up: "
        "the disk, or blocks that run_write would make one trip of.",
        "s",
        *_percentiles(TRANSACTION_TIME),
        warn=0.1,
        bad=1.0,
        empty=_NONE,
    )


def waits() -> Panel:
    """How long they are waited for."""
    return lines(
        "Wait for a transaction",
        "How long do callers wait for their turn?",
        "From asking to BEGIN: the queue for the writer, and other processes' locks. All up, with short durations: "
        "more writes than one connection can do. With Busy retries: somebody else. Alert: "
        "AiosqlitepoolWriterQueueSlow.",
        "s",
        *_percentiles(TRANSACTION_WAIT),
        warn=0.1,
        bad=1.0,
        empty=_NONE,
    )


def busy_retries() -> Panel:
    """Who else is in the way."""
    return lines(
        "Busy retries",
        "Is another process in the way?",
        "Attempts per second at transactions that found the database locked (busy), or changed since they began to "
        "read (snapshot). Find who else has the file open. Alert: AiosqlitepoolBusyRetries.",
        "ops",
        over_time(rate(BUSY_RETRIES, KIND), f"{{{{{KIND}}}}}"),
        names=BUSY_RETRIES.known,
        stacked=True,
        empty=_NONE,
    )


def wal() -> Panel:
    """How large it is, by instance."""
    return lines(
        "WAL",
        "Is what is written folded into the database?",
        "Up to about 4 MB is normal; a large one is cut when the writer is idle and no reader needs it. It only "
        "grows: see Oldest checkout of the pool .../read. Alerts: AiosqlitepoolWalLarge, AiosqlitepoolReaderPinsWal.",
        "decbytes",
        over_time(worst(_HOTTEST, largest(WAL_SIZE, *EACH)), INSTANCE),
        warn=_GROWN,
        bad=_LARGE,
        empty=_NO_WRITER,
    )


def checkpoints() -> Panel:
    """How folding it in went."""
    return lines(
        "Checkpoints",
        "What keeps the WAL from being cut?",
        "Made while nobody wrote, when the WAL was above checkpoint_above. Partial: a reader was in the way, and it "
        "is tried again after 30 s. None while the WAL is large: the writer is never idle.",
        "cpm",
        over_time(per_minute(CHECKPOINTS, RESULT), f"{{{{{RESULT}}}}}"),
        names=CHECKPOINTS.known,
        stacked=True,
        empty=_NONE,
    )
