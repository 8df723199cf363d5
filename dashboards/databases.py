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
        "Per second, by outcome. Rolled_back: the block or function raised or was cancelled. Failed: the transaction "
        "could not begin or commit, mostly because the database was locked; the caller got the error. Alert: "
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
        "In which database do writers wait, and for how long?",
        "P99 of the wait before BEGIN. One connection writes, so a long wait is the sum of the transactions in front: "
        "see Transaction duration on the board Pool in depth. Alert: AiosqlitepoolWriterQueueSlow.",
        "s",
        over_time(worst(_HOTTEST, quantile(0.99, TRANSACTION_WAIT, POOL)), POOL_NAME),
        warn=0.1,
        bad=1.0,
        empty=_NONE,
    )


def wal_by_pool() -> Panel:
    """Which database's WAL is not checkpointed."""
    return lines(
        "WAL",
        "Is the WAL checkpointed?",
        "The largest of each. Up to about 4 MB is normal. A WAL that only grows is pinned by a reader, or its writer "
        "never pauses: see Checkpoints on the board Pool in depth. Alerts: AiosqlitepoolWalLarge, "
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
        "How long does one transaction block the others?",
        "From BEGIN to COMMIT or ROLLBACK. P99 rises: a block awaits something other than the database, or there is "
        "one long job. P50 rises: a slow disk, or blocks of many trips: use run_write(), which is one trip.",
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
        "How long do callers wait for the writer?",
        "Until BEGIN: the queue for the writer, and locks of other processes. All rise while durations are short: more "
        "writes than one connection can do. With Busy retries: another process. Alert: AiosqlitepoolWriterQueueSlow.",
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
        "Does another process lock the database?",
        "Attempts per second that found the database locked (busy), or changed since the transaction began to read "
        "(snapshot). Find the other process that has the file open. Alert: AiosqlitepoolBusyRetries.",
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
        "Is the WAL checkpointed?",
        "Up to 4 MB is normal, and 15 MB while the writer never pauses. It is truncated when no reader needs it. If it "
        "only grows, see Oldest checkout of the pool .../read. Alerts: AiosqlitepoolWalLarge, "
        "AiosqlitepoolReaderPinsWal.",
        "decbytes",
        over_time(worst(_HOTTEST, largest(WAL_SIZE, *EACH)), INSTANCE),
        warn=_GROWN,
        bad=_LARGE,
        empty=_NO_WRITER,
    )


def checkpoints() -> Panel:
    """How checkpoints ended."""
    return lines(
        "Checkpoints",
        "What prevents the WAL from being truncated?",
        "Made while the WAL is above checkpoint_above. Partial: a reader prevented the rest, and the pool tries again. "
        "No checkpoints while the WAL is large: another program is to make them.",
        "cpm",
        over_time(per_minute(CHECKPOINTS, RESULT), f"{{{{{RESULT}}}}}"),
        names=CHECKPOINTS.known,
        stacked=True,
        empty=_NONE,
    )
