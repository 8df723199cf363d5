"""The words that fields of events may have."""

from __future__ import annotations

from typing import Literal

__all__ = ["BusyKind", "CheckpointResult", "CloseReason", "RollbackCause", "TransactionOutcome"]

CloseReason = Literal["idle", "lifetime", "unhealthy", "reset_failed", "broken", "pool_closed"]
RollbackCause = Literal["in_flight", "transaction", "cursor"]
TransactionOutcome = Literal["committed", "rolled_back", "failed"]
BusyKind = Literal["busy", "snapshot"]
CheckpointResult = Literal["complete", "partial"]
