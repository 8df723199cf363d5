"""What this pool promises of its speed, each as a figure of one run, and whether a result keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..inside.cores import REGIMES
from ..workloads import named
from .results import Lane, Results, Spread

__all__ = ["CLAIMS", "Claim", "Verdict", "named_in", "neck_and_neck"]


@dataclass(frozen=True, slots=True)
class Claim:
    """`figure` of `contender`, divided by that of `to` if there is one, is at least, or at most, `bound`."""

    text: str
    workload: str
    case: str
    figure: str
    to: str | None
    bound: float
    at_least: bool = True
    contender: str = "this_pool"
    to_case: str | None = None
    close: bool = False
    """Whether the two may differ by less than one round differs from the next. They play more rounds than others."""

    def judge(self, results: Results, lane: Lane) -> Verdict | None:
        """`None` if the result does not say."""
        where = lane, self.workload, self.case
        if self.to is None:
            measured = results.spread(*where, self.contender, self.figure)
        else:
            measured = results.ratio(*where, self.figure, self.contender, self.to, to_case=self.to_case)
        return None if measured is None else Verdict(self, measured)

    def compared(self) -> Iterator[tuple[str, str, str]]:
        """The workload, case and contender of each of its figures."""
        yield self.workload, self.case, self.contender
        if self.to is not None:
            yield self.workload, self.to_case or self.case, self.to


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim and what was measured of it."""

    claim: Claim
    ratio: Spread

    @property
    def kept(self) -> bool:
        """Whether the median keeps the claim."""
        return self.ratio.median >= self.claim.bound if self.claim.at_least else self.ratio.median <= self.claim.bound


_PAST, _FLOOR, _ALL = "aiosqlitepool_1", "floor", "this_pool_all"
_FIVE, _HUNDRED = "5 connections", "100 connections"


def _claims() -> Iterator[Claim]:
    for regime in REGIMES:
        yield from _of_selects(regime)
        yield from _of_cursors(regime)
        yield from _of_pages(regime)
        yield from _of_subscribers(regime)
        yield from _of_fetches(regime)
        yield from _of_database_writers(regime)
    yield from _of_one_thread()


def _of_selects(regime: str) -> Iterator[Claim]:
    case, begin = named(_FIVE, regime), f"SELECTs on {regime}"
    bound = {"one core": 0.88, "two cores": 0.95}[regime]
    yield Claim(f"{begin}, requests/s: this pool / floor", "selects", case, "rate", _FLOOR, bound, close=True)
    for peer, title, least in (
        (_PAST, "1.0.0", 2.0),
        ("asqlite_pool", "asqlite", 1.0),
        ("sqlalchemy_engine", "SQLAlchemy", 1.0),
        ("sqlspec_pool", "sqlspec", 1.0),
    ):
        yield Claim(f"{begin}, requests/s: this pool / {title}", "selects", case, "rate", peer, least)
    yield Claim(f"{begin}, P99: this pool / floor", "selects", case, "p99", _FLOOR, 1.0, at_least=False)


def _of_cursors(regime: str) -> Iterator[Claim]:
    for workers in ("1 worker", "5 workers"):
        for workload, title, on_one in (("one_row", "one row", 1.2), ("twenty_rows", "20 rows", 1.7)):
            text = f"{title} through a cursor with {workers} on {regime}, requests/s: this pool / floor"
            bound = on_one if regime == "one core" else 1.0
            yield Claim(text, workload, named(workers, regime), "rate", _FLOOR, bound, close=True)


def _of_pages(regime: str) -> Iterator[Claim]:
    for case, bound in ((_FIVE, 1.5), (_HUNDRED, 1.6)):
        begin, where = f"pages with {case} on {regime}", named(case, regime)
        yield Claim(f"{begin}, requests/s: this pool / 1.0.0", "pages", where, "rate", _PAST, bound)
        for peer, title in ((_PAST, "1.0.0"), ("open_close", "open and close")):
            yield Claim(f"{begin}, P99: this pool / {title}", "pages", where, "p99", peer, 1.0, at_least=False)


def _of_subscribers(regime: str) -> Iterator[Claim]:
    for workload, case in (("pages", _FIVE), ("pages", _HUNDRED), ("selects", _FIVE), ("mix", _FIVE)):
        text = f"{workload} with {case} on {regime}, requests/s: all subscribers / none"
        where = named(case, regime)
        yield Claim(text, workload, where, "rate", "this_pool", 0.95, contender=_ALL, close=True)


def _of_fetches(regime: str) -> Iterator[Claim]:
    case = named("all short", regime)
    for contender, title, to, peer, bound in (
        ("this_database_inline", "fetch_one() inline", _FLOOR, "floor", 5.0),
        ("this_database_inline", "fetch_one() inline", "plain_sqlite3", "plain sqlite3", 0.4),
        ("this_database_inline_read", "read() inline", _FLOOR, "floor", 3.0),
    ):
        text = f"one row by its key on {regime}, requests/s: {title} / {peer}"
        yield Claim(text, "fetch", case, "rate", to, bound, contender=contender, close=True)


def _of_database_writers(regime: str) -> Iterator[Claim]:
    case = named("in a transaction", regime)
    for to, title, bound in (("this_database", "write()", 10), ("this_database_execute", "execute()", 15)):
        text = f"inserts by 50 tasks on {regime}, P99: 1.0.0 with 20 connections / {title}"
        yield Claim(text, "inserts", case, "p99", to, bound, contender=_PAST)
    four, one = (named(f"{case}, holding 5 ms", regime) for case in ("4 processes of 5", "1 process of 20"))
    ours, text = "this_database", f"on {regime}: write() in 4 processes"
    yield Claim(f"P99 wait {text} / in one", "processes", four, "p99", ours, 1.5, False, ours, to_case=one)
    yield Claim(f"commits {text}, the least of a fair share", "processes", four, "share", None, 0.8, contender=ours)


def _of_one_thread() -> Iterator[Claim]:
    """Of what has one regime: one thread, or writers that mostly wait."""
    for case, bound in (("idle", 20), ("contended", 3)):
        text = f"acquire and release, {case}, µs: 1.0.0 / this pool"
        yield Claim(text, "borrow", case, "cycle", "this_pool", bound, contender=_PAST)
    text = "µs per waiter, this pool: 100,000 waiters / 100 waiters"
    yield Claim(text, "waiters", "100,000", "waiter", "this_pool", 1.2, at_least=False, to_case="100")
    text = "20 writers that hold 5 ms, P99: this database / 1.0.0 with 20 connections"
    own, shared = "20, each its own", "20, one connection"
    yield Claim(text, "writers", shared, "p99", _PAST, 0.2, at_least=False, contender="this_database", to_case=own)


CLAIMS = tuple(_claims())


def neck_and_neck(workload: str, case: str) -> frozenset[str]:
    """The contenders whose promised throughput in this case differs by little, or from round to round."""
    return _contenders(workload, case, [claim for claim in CLAIMS if claim.close])


def named_in(workload: str, case: str) -> frozenset[str]:
    """The contenders that a claim compares in this case."""
    return _contenders(workload, case, CLAIMS)


def _contenders(workload: str, case: str, claims: Iterable[Claim]) -> frozenset[str]:
    compared = (each for claim in claims for each in claim.compared())
    return frozenset(contender for *where, contender in compared if where == [workload, case])
