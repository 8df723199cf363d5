"""A result as Markdown tables. Knows how to lay out figures, not what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..workloads import Figure, Workload
from .claims import Verdict
from .results import Lane, Results, Spread

__all__ = ["Tables"]

_MANY = 3  # cases, whatever the regimes; of more, the cases are the columns


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one result; `titles` names the contenders, in the order of the rows."""

    results: Results
    titles: Mapping[str, str]

    def of_workload(self, lane: Lane, name: str, workload: Workload) -> str:
        """All figures of a workload in one lane."""
        cases = self.results.cases(name)
        if len(workload.cases) > _MANY:
            return "\n\n".join(
                f"**{figure.title}**\n\n{self._by_case(lane, name, figure, cases)}" for figure in workload.figures
            )
        headings = [f"**{case}**\n\n" if len(cases) > 1 or workload.threads else "" for case in cases]
        tables = [self._by_figure(lane, name, workload, case) for case in cases]
        return "\n\n".join(heading + table for heading, table in zip(headings, tables, strict=True))

    def _by_figure(self, lane: Lane, name: str, workload: Workload, case: str) -> str:
        """One case: a row per contender, a column per figure, and the ratio of the first figure."""
        first, *others = workload.figures
        rows = []
        for contender, title in self.titles.items():
            spread = self.results.spread(lane, name, case, contender, first.name)
            if spread is None:
                if why_not := self._why_not(lane, name, case, contender):
                    rows.append([title, why_not, *[""] * len(workload.figures)])
                continue
            ratio = self.results.ratio(lane, name, case, first.name, contender, workload.reference)
            others_spread = [self.results.spread(lane, name, case, contender, figure.name) for figure in others]
            cells = [_number(each, figure) for each, figure in zip(others_spread, others, strict=True)]
            rows.append([title, _spread(spread, first), _ratio(ratio), *cells])
        reference = self.titles.get(workload.reference, workload.reference)
        return _table(["", first.title, f"against {reference}", *(figure.title for figure in others)], rows)

    def _by_case(self, lane: Lane, name: str, figure: Figure, cases: Sequence[str]) -> str:
        """One figure: a row per contender, a column per case."""
        rows = []
        for contender, title in self.titles.items():
            cells = []
            for case in cases:
                spread = self.results.spread(lane, name, case, contender, figure.name)
                why_not = self._why_not(lane, name, case, contender).partition(":")[0]
                cells.append(_number(spread, figure) or why_not)
            if any(cell not in ("", "n/a") for cell in cells):
                rows.append([title, *cells])
        return _table(["", *cases], rows)

    def of_lanes(self, lanes: Sequence[Lane], name: str, workload: Workload, case: str) -> str:
        """The ratio of the first figure in every lane."""
        figure, reference, rows = workload.figures[0].name, workload.reference, []
        for contender, title in self.titles.items():
            ratios = [self.results.ratio(lane, name, case, figure, contender, reference) for lane in lanes]
            if any(ratios):
                rows.append([title, *("" if ratio is None else _short(ratio.median) for ratio in ratios)])
        return _table(["", *(f"{lane.python} {lane.loop}" for lane in lanes)], rows)

    @staticmethod
    def of_claims(verdicts: Iterable[Verdict]) -> str:
        """What is promised, and what was measured."""
        rows = [
            [
                verdict.claim.text,
                f"{'≥' if verdict.claim.at_least else '≤'} {verdict.claim.bound:g}",
                _ratio(verdict.ratio),
                "yes" if verdict.kept else "**no**",
            ]
            for verdict in verdicts
        ]
        return _table(["ratio", "wanted", "measured", "reached"], rows)

    def failures(self) -> str:
        """Who failed where, and the last line of why."""
        told = {
            (each.lane, each.workload, each.case, each.contender): (each.error or "").strip().splitlines()[-1]
            for each in self.results.failures()
        }
        return "\n".join(
            f"- {self.titles.get(contender, contender)}, in {workload}, {case} ({lane}): `{error}`"
            for (lane, workload, case, contender), error in told.items()
        )

    def _why_not(self, lane: Lane, name: str, case: str, contender: str) -> str:
        for record in self.results.of(lane, name, case, contender):
            if record.unsuitable:
                return f"n/a: {record.unsuitable}"
            if record.error:
                return "failed"
        return ""


def _number(spread: Spread | None, figure: Figure) -> str:
    return "" if spread is None else f"{spread.median:,.{figure.digits}f}"


def _spread(spread: Spread, figure: Figure) -> str:
    least, most = (f"{value:,.{figure.digits}f}" for value in (spread.least, spread.most))
    return f"{_number(spread, figure)} ({least}–{most})"  # noqa: RUF001


def _ratio(ratio: Spread | None) -> str:
    if ratio is None:
        return ""
    return f"{_short(ratio.median)} ({_short(ratio.least)}–{_short(ratio.most)})"  # noqa: RUF001


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|---{'|--:' * (len(head) - 1)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
