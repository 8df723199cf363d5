"""What is seen while it runs: a bar with the time left on a terminal, a line per case elsewhere. Knows rich."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .catalogue import ContenderFile, Interpreter
from .results import Record
from .runner import Plan, Step

__all__ = ["RunScreen", "building", "watching"]


class RunScreen:
    """Told of each round, it moves the bar by what the round was thought to take; it saves after every case."""

    def __init__(self, plan: Plan, console: Console, bars: Progress, save: Callable[[], None]) -> None:
        self._plan, self._console, self._bars, self._save = plan, console, bars, save
        steps = plan.steps()
        self._bar = bars.add_task("", total=sum(map(plan.seconds, steps)))
        self._case: tuple[object, ...] = ()

    def preparing(self, contender: ContenderFile, python: Interpreter) -> None:
        """An environment is looked at, and made if need be."""
        self._bars.update(self._bar, description=f"environment: {contender.title}, {python.version}")

    def begun(self, step: Step) -> None:
        """A round begins."""
        case = (step.python.version, step.loop, step.workload, step.named)
        if case != self._case:
            if self._case:
                self._save()
            self._case = case
            if not self._console.is_terminal:
                self._console.print(" · ".join(map(str, case)), soft_wrap=True)
        what = f"{step.python.version} {step.loop} · {step.workload} · {step.named} · {step.round} · {step.contender}"
        self._bars.update(self._bar, description=what)

    def done(self, step: Step, record: Record) -> None:
        """A round has ended, or was left out."""
        self._bars.advance(self._bar, self._plan.seconds(step))
        if record.error and record.round == step.round:
            where = f"{step.contender} failed in {step.workload}, {step.named}"
            self._console.print(f"{where}: {record.error.strip().splitlines()[-1]}", soft_wrap=True, style="red")


@contextmanager
def watching(plan: Plan, console: Console, save: Callable[[], None]) -> Iterator[RunScreen]:
    """Show how far the run is."""
    columns = (BarColumn(20), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(
        *columns, TextColumn("{task.description}"), console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        yield RunScreen(plan, console, bars, save)


@contextmanager
def building(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show how far the data set is built."""
    columns = (TextColumn("Building the data set: {task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        bar = bars.add_task("", total=None)
        yield lambda table, done, total: bars.update(bar, description=table, completed=done, total=total)
