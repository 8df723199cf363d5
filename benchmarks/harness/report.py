"""RESULTS.md from a result and the hand-written template, with the pictures beside it.

In the template, a line `{{ NAME }}` is replaced: by a workload's tables and pictures, or by one of the parts below.
What the template says around them must stay true whatever the figures are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from .catalogue import ROOT, contenders, workload_text, workloads
from .claims import CLAIMS
from .results import Lane, Results
from .tables import Tables

__all__ = ["report", "summary", "write_report"]

TEMPLATE = ROOT / "RESULTS.template.md"
_PLACE = re.compile(r"^\{\{ (\w+) \}\}$", re.MULTILINE)


def write_report(results: Results, folder: Path = ROOT) -> Path:
    """Write RESULTS.md and its pictures into `folder`; returns the path of the former."""
    from .pictures import draw_all  # matplotlib takes a second to import, and is not needed to print tables

    pictures = draw_all(results, folder / "pictures", _titles(results))
    path = folder / "RESULTS.md"
    path.write_text(report(results, pictures), encoding="utf-8")
    return path


def report(results: Results, pictures: dict[str, list[str]] | None = None) -> str:
    """The text of RESULTS.md. `pictures` are paths relative to it, by workload."""
    template = TEMPLATE.read_text(encoding="utf-8")
    parts = _parts(results, pictures or {})
    # A workload that the template does not know yet is not lost: its own docstring introduces it.
    known = set(_PLACE.findall(template))
    new = [f"## {workload.title}\n\n{{{{ {name} }}}}\n" for name, workload in workloads().items() if name not in known]
    text = "\n".join([template, *new])
    return _PLACE.sub(lambda place: parts[place[1]](), text)


def summary(results: Results) -> str:
    """The tables alone, of what was measured: for a look on the terminal."""
    measured = {record.workload for record in results.records}
    parts, titles = _parts(results, {}), {name: workload.title for name, workload in workloads().items()}
    shown = {"claims": "What it must reach", **titles, "lanes": "Other Pythons, other loops", "failures": "Failures"}
    sections = [
        f"## {title}\n\n{parts[name]()}" for name, title in shown.items() if name not in titles or name in measured
    ]
    return "\n\n".join([parts["machine"](), *sections])


def _parts(results: Results, pictures: dict[str, list[str]]) -> dict[str, Callable[[], str]]:
    parts: dict[str, Callable[[], str]] = {
        "machine": lambda: _machine(results),
        "claims": lambda: _claims(results),
        "lanes": lambda: _lanes(results),
        "failures": lambda: _tables(results).failures() or "None.",
    }
    for name in workloads():
        parts[name] = lambda name=name: _workload(results, name, pictures.get(name, []))  # type: ignore[misc]
    return parts


def _titles(results: Results) -> dict[str, str]:
    found = contenders()
    took_part = results.contenders()
    return {name: found[name].title if name in found else name for name in [*found, *took_part] if name in took_part}


def _tables(results: Results) -> Tables:
    return Tables(results, _titles(results))


def _machine(results: Results) -> str:
    about = results.about
    how = [f"data set at scale {about['scale']:g}", f"{about['rounds']} rounds of each"]
    if about.get("close_rounds", 0) > about["rounds"]:
        how.append(f"{about['close_rounds']} of contenders that are close")
    if len(results.lanes()) > 1 and "other_rounds" in about:
        how.append(f"{about['other_rounds']} on other Pythons and other loops")
    if about["effort"] != 1:
        how.append(f"{about['effort']:g} of the full number of requests")
    where = f"{about['processor']}, {about['cores']} cores, load {about['load']:g} before it began, {about['system']}"
    when = f"{about['date']} at commit `{about['commit']}`"
    measured = f"Measured on {when}: {where}. With a {', '.join(how)}. {_stands_on(results)}"
    regimes = about.get("regimes", {}).items()
    unpinned = [f"“{regime}” was not pinned: {how}." for regime, how in regimes if how != "pinned"]
    # By hand, as where a result was put together from two.
    return "\n\n".join([measured, *unpinned, *about.get("notes", [])])


def _stands_on(results: Results) -> str:
    workers = [worker for lane in results.about.get("workers", {}).values() for worker in lane.values() if worker]
    versions = {
        "CPython": {worker["python"] for worker in workers},
        "SQLite": {worker["sqlite"] for worker in workers},
        "aiosqlite": {worker["packages"].get("aiosqlite") for worker in workers} - {None},
    }
    return "; ".join(f"{name} {', '.join(sorted(found))}" for name, found in versions.items() if found) + "."


def _claims(results: Results) -> str:
    lanes = results.lanes()
    verdicts = [claim.judge(results, lanes[0]) for claim in CLAIMS] if lanes else []
    return Tables.of_claims(verdict for verdict in verdicts if verdict)


def _workload(results: Results, name: str, pictures: list[str]) -> str:
    text = workload_text(name).strip()
    lane = next((record.lane for record in results.records if record.workload == name), None)
    if lane is None:
        return f"{text}\n\nNot measured in this run."
    tables = _tables(results).of_workload(lane, name, workloads()[name])
    shown = [f"![Latency by percentile: {workloads()[name].title}]({path})" for path in pictures]
    return "\n\n".join([f"{text} ({lane}.)", tables, *shown])


def _lanes(results: Results) -> str:
    parts = []
    for name, workload in workloads().items():
        for case in results.cases(name):
            lanes = [lane for lane in results.lanes() if _was_run(results, lane, name, case)]
            if len(lanes) == 1:
                continue
            table = _tables(results).of_lanes(lanes, name, workload, case)
            parts.append(f"**{workload.title}, {case}: {workload.figures[0].title}**\n\n{table}")
    return "\n\n".join(parts) or "Only one was measured."


def _was_run(results: Results, lane: Lane, name: str, case: str) -> bool:
    return any((each.lane, each.workload, each.case) == (lane, name, case) for each in results.records)
