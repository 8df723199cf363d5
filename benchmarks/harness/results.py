"""What a run came to: one record per round, kept as JSON; medians, ratios and their spread are worked out from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["Lane", "Record", "Results", "Spread"]


@dataclass(frozen=True, slots=True, order=True)
class Lane:
    """A Python and an event loop: contenders are compared within one."""

    python: str
    loop: str

    def __str__(self) -> str:
        return f"CPython {self.python}, {self.loop}"


@dataclass(frozen=True, slots=True)
class Record:
    """One round of one contender. Exactly one of `figures`, `unsuitable` and `error` is given."""

    python: str
    loop: str
    workload: str
    case: str
    contender: str
    round: int
    figures: dict[str, float] | None = None
    quantiles: list[float] = field(default_factory=list)
    unsuitable: str | None = None
    error: str | None = None

    @property
    def lane(self) -> Lane:
        """Where it was measured."""
        return Lane(self.python, self.loop)


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, and how far they lie apart."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> Spread | None:
        """`None` if there are no values."""
        return cls(median(values), min(values), max(values)) if values else None


@dataclass(slots=True)
class Results:
    """All records of a run, and what it ran on."""

    about: dict[str, Any] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)

    # -- keeping

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(content["about"], [Record(**record) for record in content["records"]])

    def save(self, path: Path) -> None:
        """Write it, one record a line; a reader never sees half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        records = ",\n".join(json.dumps(_slim(record)) for record in self.records)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(
            f'{{"about": {json.dumps(self.about, indent=1)},\n"records": [\n{records}\n]}}\n', encoding="utf-8"
        )
        unfinished.replace(path)

    # -- asking

    def lanes(self) -> list[Lane]:
        """In the order in which they were run."""
        return list(dict.fromkeys(record.lane for record in self.records))

    def cases(self, workload: str) -> list[str]:
        """Of a workload, those that were run."""
        return list(dict.fromkeys(record.case for record in self.records if record.workload == workload))

    def contenders(self) -> list[str]:
        """All that took part, in the order of the tables."""
        return list(dict.fromkeys(record.contender for record in self.records))

    def of(self, lane: Lane, workload: str, case: str, contender: str) -> Iterator[Record]:
        """The rounds of one contender."""
        for record in self.records:
            if (record.lane, record.workload, record.case, record.contender) == (lane, workload, case, contender):
                yield record

    def values(self, lane: Lane, workload: str, case: str, contender: str, figure: str) -> dict[int, float]:
        """A figure by round."""
        rounds = self.of(lane, workload, case, contender)
        return {each.round: each.figures[figure] for each in rounds if each.figures and figure in each.figures}

    def spread(self, lane: Lane, workload: str, case: str, contender: str, figure: str) -> Spread | None:
        """A figure over all rounds."""
        return Spread.of(list(self.values(lane, workload, case, contender, figure).values()))

    def ratio(
        self, lane: Lane, workload: str, case: str, figure: str, contender: str, to: str, *, to_case: str | None = None
    ) -> Spread | None:
        """A figure of one contender divided by that of another, round by round: what slowed a round slowed both."""
        ours = self.values(lane, workload, case, contender, figure)
        theirs = self.values(lane, workload, to_case or case, to, figure)
        return Spread.of([value / theirs[each] for each, value in ours.items() if theirs.get(each)])

    def median_quantiles(self, lane: Lane, workload: str, case: str, contender: str) -> list[float]:
        """The latencies' quantiles, each the median of its rounds."""
        rounds = [each.quantiles for each in self.of(lane, workload, case, contender) if each.quantiles]
        return [median(values) for values in zip(*rounds, strict=True)]

    def failures(self) -> list[Record]:
        """The rounds that failed."""
        return [record for record in self.records if record.error]


def _slim(record: Record) -> dict[str, Any]:
    """Without what is not given, and with six digits, which is more than was measured."""
    given = {name: value for name, value in asdict(record).items() if value is not None and value != []}
    for name in ("figures", "quantiles"):
        if name in given:
            given[name] = _rounded(given[name])
    return given


def _rounded(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: float(f"{value:.6g}") for name, value in values.items()}
    return [float(f"{value:.4g}") for value in values]
