"""What this pool promises of its speed, each as a ratio within one run, and whether a result keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .results import Lane, Results, Spread

__all__ = ["CLAIMS", "Claim", "Verdict"]


@dataclass(frozen=True, slots=True)
class Claim:
    """`figure` of `contender` divided by that of `to` is at least, or at most, `bound`."""

    text: str
    workload: str
    case: str
    figure: str
    to: str
    bound: float
    at_least: bool = True
    contender: str = "this_pool"
    to_case: str | None = None

    def judge(self, results: Results, lane: Lane) -> Verdict | None:
        """`None` if the result does not say."""
        ratio = results.ratio(
            lane, self.workload, self.case, self.figure, self.contender, self.to, to_case=self.to_case
        )
        return None if ratio is None else Verdict(self, ratio)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim and what was measured of it."""

    claim: Claim
    ratio: Spread

    @property
    def kept(self) -> bool:
        """Whether the median keeps the claim."""
        return self.ratio.median >= self.claim.bound if self.claim.at_least else self.ratio.median <= self.claim.bound


_FIVE, _HUNDRED = "5 connections", "100 connections"


def _claims() -> Iterator[Claim]:
    yield Claim("SELECTs: throughput of the floor", "selects", _FIVE, "rate", "floor", 0.95)
    yield Claim("SELECTs: throughput of 1.0.0", "selects", _FIVE, "rate", "aiosqlitepool_1", 2.0)
    for peer, title in (("sqlalchemy_engine", "SQLAlchemy"), ("asqlite_pool", "asqlite"), ("sqlspec_pool", "sqlspec")):
        yield Claim(f"SELECTs: throughput of {title}", "selects", _FIVE, "rate", peer, 1.0)
    yield Claim("SELECTs: P99 of the floor", "selects", _FIVE, "p99", "floor", 1.0, at_least=False)
    for case in (_FIVE, _HUNDRED):
        yield Claim(f"pages, {case}: throughput of 1.0.0", "pages", case, "rate", "aiosqlitepool_1", 1.5)
        yield Claim(f"pages, {case}: P99 of 1.0.0", "pages", case, "p99", "aiosqlitepool_1", 1.0, at_least=False)
        yield Claim(f"pages, {case}: P99 of open and close", "pages", case, "p99", "open_close", 1.0, at_least=False)
    for case, bound in (("idle", 20), ("contended", 3)):
        text = f"acquire and release, {case}: time of this pool against 1.0.0's"
        yield Claim(text, "borrow", case, "cycle", "this_pool", bound, contender="aiosqlitepool_1")
    text = "a waiter among 100,000: cost of one among 100"
    yield Claim(text, "waiters", "100,000", "waiter", "this_pool", 1.2, at_least=False, to_case="100")
    for workload, cases in (("pages", (_FIVE, _HUNDRED)), ("selects", (_FIVE,)), ("mix", (_FIVE,))):
        for case in cases:
            text = f"all subscribers, {workload}, {case}: throughput with none"
            yield Claim(text, workload, case, "rate", "this_pool", 0.95, contender="this_pool_all")


CLAIMS = tuple(_claims())
