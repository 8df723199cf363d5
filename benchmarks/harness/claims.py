"""What this pool promises of its speed, each as a ratio within one run, and whether a result keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .results import Lane, Results, Spread

__all__ = ["CLAIMS", "Claim", "Verdict", "neck_and_neck"]


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


# Of the throughput of another: rounds of the same contender differ by more.
_CLOSE = 0.95
_FIVE, _HUNDRED, _ONE = "5 connections", "100 connections", "20, one connection"


def _claims() -> Iterator[Claim]:
    yield Claim("SELECTs, requests/s: this pool / floor", "selects", _FIVE, "rate", "floor", _CLOSE)
    for peer, title, bound in (
        ("aiosqlitepool_1", "1.0.0", 2.0),
        ("asqlite_pool", "asqlite", 1.0),
        ("sqlalchemy_engine", "SQLAlchemy", 1.0),
        ("sqlspec_pool", "sqlspec", 1.0),
    ):
        yield Claim(f"SELECTs, requests/s: this pool / {title}", "selects", _FIVE, "rate", peer, bound)
    yield Claim("SELECTs, P99: this pool / floor", "selects", _FIVE, "p99", "floor", 1.0, at_least=False)
    for workers in ("1 worker", "5 workers"):
        for workload, title, bound in (("one_row", "one row", 1.2), ("twenty_rows", "20 rows", 1.7)):
            text = f"{title} through a cursor with {workers}, requests/s: this pool / floor"
            yield Claim(text, workload, workers, "rate", "floor", bound)
    for case in (_FIVE, _HUNDRED):
        pages = f"pages with {case}"
        yield Claim(f"{pages}, requests/s: this pool / 1.0.0", "pages", case, "rate", "aiosqlitepool_1", 1.5)
        for peer, title in (("aiosqlitepool_1", "1.0.0"), ("open_close", "open and close")):
            yield Claim(f"{pages}, P99: this pool / {title}", "pages", case, "p99", peer, 1.0, at_least=False)
    for case, bound in (("idle", 20), ("contended", 3)):
        text = f"acquire and release, {case}, µs: 1.0.0 / this pool"
        yield Claim(text, "borrow", case, "cycle", "this_pool", bound, contender="aiosqlitepool_1")
    text = "µs per waiter, this pool: 100,000 waiters / 100 waiters"
    yield Claim(text, "waiters", "100,000", "waiter", "this_pool", 1.2, at_least=False, to_case="100")
    text, case = "20 writers that hold 5 ms, P99: this database / 1.0.0 with 20 connections", "20, each its own"
    yield Claim(
        text, "writers", _ONE, "p99", "aiosqlitepool_1", 0.2, at_least=False, contender="this_database", to_case=case
    )
    for workload, case in (("pages", _FIVE), ("pages", _HUNDRED), ("selects", _FIVE), ("mix", _FIVE)):
        text = f"{workload} with {case}, requests/s: all subscribers / none"
        yield Claim(text, workload, case, "rate", "this_pool", _CLOSE, contender="this_pool_all")


CLAIMS = tuple(_claims())


def neck_and_neck(workload: str) -> frozenset[str]:
    """Who is promised to come as close to another in throughput as one round comes to the next."""
    close = [claim for claim in CLAIMS if (claim.workload, claim.figure, claim.bound) == (workload, "rate", _CLOSE)]
    return frozenset(name for claim in close for name in (claim.contender, claim.to))
