"""A result as Markdown tables. Knows how to lay out figures, not what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..workloads import Figure, Workload
from .claims import Verdict
from .results import Lane, Results, Spread

__all__ = ["claim_table", "failure_list", "lane_table", "workload_tables"]

_MANY = 2  # cases; of more, the cases are the columns


def workload_tables(results: Results, lane: Lane, name: str, workload: Workload, titles: dict[str, str]) -> str:
    """All figures of a workload in one lane."""
    cases = [case for case in workload.cases if case in results.cases(name)]
    if len(cases) > _MANY:
        parts = [
            f"{figure.title}\n\n{_by_case(results, lane, name, workload, figure, cases, titles)}"
            for figure in workload.figures
        ]
    else:
        heading = "{}\n\n" if len(workload.cases) > 1 else ""
        parts = [heading.format(f"With {case}" if case[0].isdigit() else case.capitalize()) + _by_figure(results, lane, name, workload, case, titles) for case in cases]
    return "\n\n".join(parts)


def _by_figure(
    results: Results, lane: Lane, name: str, workload: Workload, case: str, titles: dict[str, str]
) -> str:
    """One case: a row per contender, a column per figure, and the ratio of the first figure."""
    first = workload.figures[0]
    head = ["", first.title, f"× {titles.get(workload.reference, workload.reference)}"]
    head += [figure.title for figure in workload.figures[1:]]
    rows = []
    for contender, title in titles.items():
        spreads = [results.spread(lane, name, case, contender, figure.name) for figure in workload.figures]
        if spreads[0] is None:
            rows.append([title, _why_not(results, lane, name, case, contender), *[""] * len(workload.figures)])
            continue
        ratio = results.ratio(lane, name, case, first.name, contender, workload.reference)
        shown = [_number(spread, figure) for spread, figure in zip(spreads, workload.figures, strict=True)]
        rows.append([title, _spread(spreads[0], first), _ratio(ratio), *shown[1:]])
    return _table(head, rows)


def _by_case(
    results: Results,
    lane: Lane,
    name: str,
    workload: Workload,
    figure: Figure,
    cases: Sequence[str],
    titles: dict[str, str],
) -> str:
    """One figure: a row per contender, a column per case."""
    rows = []
    for contender, title in titles.items():
        spreads = [results.spread(lane, name, case, contender, figure.name) for case in cases]
        cells = [
            _number(spread, figure) if spread else _why_not(results, lane, name, case, contender).partition(":")[0]
            for spread, case in zip(spreads, cases, strict=True)
        ]
        if any(cell not in ("", "n/a") for cell in cells):
            rows.append([title, *cells])
    return _table(["", *cases], rows)


def lane_table(
    results: Results, lanes: Sequence[Lane], name: str, workload: Workload, case: str, titles: dict[str, str]
) -> str:
    """The ratio of the first figure in every lane."""
    rows = []
    for contender, title in titles.items():
        ratios = [
            results.ratio(lane, name, case, workload.figures[0].name, contender, workload.reference) for lane in lanes
        ]
        if any(ratios):
            rows.append([title, *map(_ratio, ratios)])
    return _table(["", *(f"{lane.python} {lane.loop}" for lane in lanes)], rows)


def claim_table(verdicts: Iterable[Verdict]) -> str:
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
    return _table(["ratio of this pool to", "promised", "measured", "kept"], rows)


def failure_list(results: Results, titles: dict[str, str]) -> str:
    """Who failed where, and the last line of why."""
    told = {
        (each.lane, each.workload, each.case, each.contender): (each.error or "").strip().splitlines()[-1]
        for each in results.failures()
    }
    return "\n".join(
        f"- {titles.get(contender, contender)}, in {workload}, {case} ({lane}): `{error}`"
        for (lane, workload, case, contender), error in told.items()
    )


def _why_not(results: Results, lane: Lane, name: str, case: str, contender: str) -> str:
    for record in results.of(lane, name, case, contender):
        if record.unsuitable:
            return f"n/a: {record.unsuitable}"
        if record.error:
            return "failed"
    return ""


def _number(spread: Spread | None, figure: Figure) -> str:
    return "" if spread is None else f"{spread.median:,.{figure.digits}f}"


def _spread(spread: Spread, figure: Figure) -> str:
    digits = figure.digits
    return f"{spread.median:,.{digits}f} ({spread.least:,.{digits}f}–{spread.most:,.{digits}f})"


def _ratio(ratio: Spread | None) -> str:
    return "" if ratio is None else f"{_short(ratio.median)} ({_short(ratio.least)}–{_short(ratio.most)})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|---{'|--:' * (len(head) - 1)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
