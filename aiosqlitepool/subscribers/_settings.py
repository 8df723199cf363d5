"""The arguments that the subscribers with metrics share, checked once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from ._buckets import Bounds, checked_buckets
from ._metrics import CREATE_TIME, OPERATION_DURATION, TRANSACTION_TIME, TRANSACTION_WAIT, USE_TIME, WAIT_TIME, Metric

__all__ = ["MOST_SUMMARIES", "MetricSettings"]

MOST_SUMMARIES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSettings:
    """What decides which series there are. The fields are arguments of the subscribers."""

    wait_buckets: Bounds
    create_buckets: Bounds
    use_buckets: Bounds
    transaction_buckets: Bounds
    statement_buckets: Bounds
    statement_summaries: int
    by_label: bool

    @classmethod
    def checked(cls, *, statement_summaries: int, by_label: bool, **buckets: Iterable[float]) -> MetricSettings:
        """Return settings of these arguments. Raises `ValueError` naming the invalid one."""
        if type(statement_summaries) is not int or not 0 <= statement_summaries <= MOST_SUMMARIES:
            raise ValueError(
                f"statement_summaries must be a whole number from 0 to {MOST_SUMMARIES}, not {statement_summaries!r}"
            )
        if type(by_label) is not bool:
            raise ValueError(f"by_label must be True or False, not {by_label!r}")
        bounds = {argument: checked_buckets(argument, each) for argument, each in buckets.items()}
        return cls(statement_summaries=statement_summaries, by_label=by_label, **bounds)

    @property
    def buckets(self) -> dict[Metric, Bounds]:
        """The bounds of each histogram's buckets."""
        return {
            WAIT_TIME: self.wait_buckets,
            CREATE_TIME: self.create_buckets,
            USE_TIME: self.use_buckets,
            TRANSACTION_TIME: self.transaction_buckets,
            TRANSACTION_WAIT: self.wait_buckets,
            OPERATION_DURATION: self.statement_buckets,
        }

    def check_same(self, wanted: MetricSettings, owner: str) -> None:
        """Raise `ValueError` if another subscriber of the same owner wants other series."""
        for each in fields(self):
            have, want = getattr(self, each.name), getattr(wanted, each.name)
            if have != want:
                raise ValueError(
                    f"the {owner} has these metrics already, with {each.name}={have!r}, not {want!r}: "
                    f"use the same, or another {owner}"
                )
