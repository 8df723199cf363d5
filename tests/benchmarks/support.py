"""Plays plans with contenders that run in this very environment, and records made by hand."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness.catalogue import ContenderFile, Interpreter, contenders, workloads
from benchmarks.harness.results import Lane, Record, Results
from benchmarks.harness.runner import Plan, Step, play
from benchmarks.inside.load import PERCENTS

LANE = Lane("3.11", "asyncio")
TWO = "two cores"
FIVE = f"5 connections, {TWO}"
WHERE = {"date": "2026-01-01", "processor": "one", "cores": 2, "load": 0.1, "system": "any", "commit": "abc"}


class Silence:
    """A watcher that only remembers."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def preparing(self, contender: ContenderFile, python: Interpreter) -> None: ...

    def begun(self, step: Step) -> None:
        self.steps.append(step)

    def done(self, step: Step, record: Record) -> None: ...


def this_environment(contender: ContenderFile, python: Interpreter) -> Path:
    return Path(sys.executable)


def plan_for(
    python: Interpreter, workload: str, cases: Iterable[str] | None = None, *names: str, **settings: Any
) -> Plan:
    """A tiny plan of one workload."""
    known, chosen = contenders(), workloads()[workload]
    kept = {case: value for case, value in chosen.cases.items() if cases is None or case in cases}
    settings = {"rounds": 1, "effort": 0.002, "limit": 60.0, "loops": ["asyncio"], "regimes": [TWO], **settings}
    return Plan(
        {name: known[name] for name in names or ("floor", "this_pool")},
        {workload: replace(chosen, cases=kept)},
        [python],
        **settings,
    )


async def played(plan: Plan, data: Mapping[str, Any], make_environment: Any = this_environment) -> Results:
    results = Results({**WHERE, "scale": 0.0005, "rounds": plan.rounds, "effort": plan.effort})
    await play(plan, data, make_environment, Silence(), results)
    return results


def record(contender: str, number: int = 1, *, workload: str = "selects", case: str = FIVE, **more: Any) -> Any:
    return Record(LANE.python, LANE.loop, workload, case, contender, number, **more)


def rates(contender: str, *values: float) -> list[Record]:
    """A record for each round, with a rate and latencies."""
    figures = {"average": 1.0, "median": 1.0, "p90": 2.0, "p99": 3.0, "stall": 1.5, "cpu": 50.0, "later": 0.0}
    latencies = [percent / 1000 for percent in PERCENTS]
    return [
        record(contender, number, figures={"rate": value, **figures}, quantiles=latencies)
        for number, value in enumerate(values, 1)
    ]
