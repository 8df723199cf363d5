"""Playing the rounds: within a lane every contender has a warm process, and they take turns, round by round.

A contender that cannot be set up, dies, hangs or errs is recorded as failed, and sits out the rest of that case.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..inside.cores import REGIMES
from ..inside.task import Task
from ..workloads import Workload, named
from .catalogue import ContenderFile, Interpreter
from .claims import named_in, neck_and_neck
from .environments import EnvironmentFailedError
from .process import WorkerFailedError, WorkerProcess
from .results import Record, Results

__all__ = ["Plan", "Step", "Watcher", "play"]

MakeEnvironment = Callable[[ContenderFile, Interpreter], Path]


@dataclass(frozen=True, slots=True)
class Step:
    """One round of one contender, on its way."""

    python: Interpreter
    loop: str
    workload: str
    case: str
    regime: str
    contender: str
    round: int

    @property
    def named(self) -> str:
        """The case with its regime, as results call it."""
        return named(self.case, self.regime)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    contenders: Mapping[str, ContenderFile]
    workloads: Mapping[str, Workload]
    pythons: Sequence[Interpreter]
    """The first of them, with the first loop, runs everything; the others what claims are made of, in fewer rounds."""
    loops: Sequence[str]
    rounds: int
    effort: float
    limit: float = 120.0
    """Seconds that one round may take."""
    close_rounds: int = 0
    """Rounds of contenders that are close, in the first lane; if that is more than the others have."""
    other_rounds: int = 1
    """Rounds in every lane but the first."""
    regimes: Collection[str] = tuple(REGIMES)
    """Where workloads with threads run."""

    def steps(self) -> list[Step]:
        """Every round, in the order of play: all contenders have played one before any plays the next."""
        return [step for lane in self.lanes() for step in self.steps_of(*lane)]

    def lanes(self) -> Iterator[tuple[Interpreter, str]]:
        """The first Python with every loop, then the others with the first loop."""
        first, *others = self.pythons
        return iter([*((first, loop) for loop in self.loops), *((python, self.loops[0]) for python in others)])

    def steps_of(self, python: Interpreter, loop: str) -> list[Step]:
        """The rounds of one lane."""
        first = python == self.pythons[0] and loop == self.loops[0]
        return [
            Step(python, loop, name, case, regime, contender, number)
            for name, workload in self.workloads.items()
            for case in workload.cases
            for regime in workload.regimes(self.regimes)
            for number in range(1, (max(self.rounds, self.close_rounds) if first else self.other_rounds) + 1)
            for contender in self._players(name, named(case, regime), number, first=first)
        ]

    def _players(self, workload: str, case: str, number: int, *, first: bool) -> list[str]:
        """Who plays this round of a case."""
        invites = self.workloads[workload].invites
        players = [name for name, file in self.contenders.items() if file.takes_part(workload) and invites(name)]
        if not first:
            chosen = named_in(workload, case)
        elif number > self.rounds:
            chosen = neck_and_neck(workload, case)
        else:
            return players
        return [name for name in players if name in chosen]

    def seconds(self, step: Step) -> float:
        """About how long a step takes."""
        return 0.15 + self.workloads[step.workload].seconds * self.effort


class Watcher(Protocol):
    """Who is told how far a run is."""

    def preparing(self, contender: ContenderFile, python: Interpreter) -> None:
        """An environment is looked at, and made if need be."""
        ...

    def begun(self, step: Step) -> None:
        """A round begins."""
        ...

    def done(self, step: Step, record: Record) -> None:
        """A round has ended, or was left out."""
        ...


async def play(
    plan: Plan, data: Mapping[str, Any], make_environment: MakeEnvironment, watcher: Watcher, results: Results
) -> None:
    """Run the plan, adding a record for each step to `results`. `data` is what a task tells of the data set."""
    for python, loop in plan.lanes():
        ready, broken = _environments(plan, python, make_environment, watcher)
        async with AsyncExitStack() as stack:
            workers = {name: WorkerProcess(executable, name, loop) for name, executable in ready.items()}
            for worker in workers.values():
                stack.push_async_callback(worker.stop)
            sitting_out: dict[tuple[str, str, str], Record] = {}
            for step in plan.steps_of(python, loop):
                watcher.begun(step)
                key = (step.workload, step.named, step.contender)
                record = sitting_out.get(key)
                if record is None:
                    record = await _round(plan, step, workers.get(step.contender), broken, data)
                    results.records.append(record)
                    if record.figures is None:
                        sitting_out[key] = record
                watcher.done(step, record)
            results.about.setdefault("workers", {})[f"{python.version}, {loop}"] = {
                name: worker.about for name, worker in workers.items()
            }


def _environments(
    plan: Plan, python: Interpreter, make_environment: MakeEnvironment, watcher: Watcher
) -> tuple[dict[str, Path], dict[str, str]]:
    ready: dict[str, Path] = {}
    broken: dict[str, str] = {}
    for name, contender in plan.contenders.items():
        watcher.preparing(contender, python)
        try:
            ready[name] = make_environment(contender, python)
        except EnvironmentFailedError as error:
            broken[name] = f"its environment could not be made: {error}"
    return ready, broken


async def _round(
    plan: Plan, step: Step, worker: WorkerProcess | None, broken: Mapping[str, str], data: Mapping[str, Any]
) -> Record:
    head = (step.python.version, step.loop, step.workload, step.named, step.contender, step.round)
    if worker is None:
        return Record(*head, error=broken[step.contender])
    scratch = tempfile.mkdtemp(prefix="bench-")
    try:
        task = Task(
            step.workload, step.case, step.round, scratch=scratch, regime=step.regime, effort=plan.effort, **data
        )
        return Record(*head, **await worker.measure(task, plan.limit))
    except WorkerFailedError as error:
        return Record(*head, error=str(error))
    finally:
        if plan.workloads[step.workload].fresh:
            await worker.stop()
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
