"""The command line: `python -m benchmarks` measures and reports, `python -m benchmarks report FILE` only reports."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from .harness import machine
from .harness.catalogue import ROOT, Interpreter, contenders, pythons, workloads
from .harness.data import data_set, told_to_workers
from .harness.environments import environment
from .harness.report import summary, write_report
from .harness.results import Results
from .harness.runner import Plan, play
from .harness.screen import building, watching
from .inside.cores import REGIMES

RESULTS = ROOT / "results"
_INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended

T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if all contenders did what they could, 1 if one failed, 2 for a wrong call."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["report"]:
        return _report(arguments[1:])
    try:
        return _run(_run_parser().parse_args(arguments))
    except KeyboardInterrupt:
        print("python -m benchmarks: interrupted", file=sys.stderr)
        return _INTERRUPTED


def _run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure this pool beside its peers, in rounds that take turns.",
        epilog="Options that take names may be repeated. A full run (no options) writes RESULTS.md and its pictures; "
        "any other prints its tables. `python -m benchmarks report FILE` makes RESULTS.md from an earlier result.",
    )
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="a look: one Python, loop and regime, 2 rounds, scale 0.01, a tenth of the load",
    )
    rounds = "rounds of each case (default: 3); of contenders that are close, 3 x N"
    add("--rounds", type=int, choices=range(1, 101), metavar="N", help=rounds)
    add("--workload", action="append", choices=sorted(workloads()), metavar="NAME", help=_names("this", workloads()))
    add("--contender", action="append", choices=sorted(contenders()), metavar="NAME", help=_names("it", contenders()))
    add("--python", action="append", metavar="VERSION", help="like 3.12 (default: all of 3.11 to 3.13 found here)")
    add("--loop", action="append", choices=("asyncio", "uvloop"), help="default: both")
    add(
        "--regime",
        choices=[name.split()[0] for name in REGIMES],
        help="cores for workloads with threads (default: both)",
    )
    add("--scale", type=_positive, metavar="F", help="size of the data set (default: 1, 1.2 million users)")
    add("--effort", type=_positive, metavar="F", help="part of the full number of requests (default: 1)")
    add("--output", type=Path, metavar="FILE", help="where the result goes (default: in benchmarks/results/)")
    return parser


def _names(what: str, names: Iterable[str]) -> str:
    return f"only {what}: {', '.join(names)}"


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0001 <= value <= 10:  # so written, because no comparison with NaN is true
        raise argparse.ArgumentTypeError(f"must be a number from 0.0001 to 10, not {text!r}")
    return value


def _run(options: argparse.Namespace) -> int:
    found = pythons()
    missing = [version for version in options.python or () if version not in found]
    if missing:
        where = f"no CPython {', '.join(missing)} here (found: {', '.join(found)})"
        print(f"python -m benchmarks: error: {where}", file=sys.stderr)
        return 2
    console, plan = Console(highlight=False, markup=False), _plan(options, found)
    results = _measured(plan, options, console)
    if any(value for name, value in vars(options).items() if name != "output"):
        print(summary(results))
    else:
        results.save(RESULTS / "full.json")
        console.print(f"Written: {write_report(results)}", soft_wrap=True)
    return 1 if results.failures() else 0


def _measured(plan: Plan, options: argparse.Namespace, console: Console) -> Results:
    """Run the plan. What was measured is kept also when it is interrupted, and never takes the place of a full run."""
    scale = options.scale or (0.01 if options.quick else 1.0)
    about = machine.about(plan, scale)
    if about["load"] > about["cores"] / 2:
        console.print(
            f"Others are using this machine (load {about['load']:g}): believe no figure of this run", style="red"
        )
    with building(console) as progress:
        database = data_set(scale, progress)
    console.print(f"Data set: {database.size}", soft_wrap=True)
    steps = plan.steps()
    console.print(f"{len(steps):,} rounds, about {sum(map(plan.seconds, steps)) / 60:.0f} minutes")
    output, results = options.output or RESULTS / "partial.json", Results(about)
    try:
        with watching(plan, console, lambda: results.save(output)) as screen:
            asyncio.run(play(plan, told_to_workers(database), environment, screen, results))
    finally:
        results.save(output)
        console.print(f"The result: {output}", soft_wrap=True)
    return results


def _plan(options: argparse.Namespace, found: dict[str, Interpreter]) -> Plan:
    quick, available = options.quick, list(_only(found, options.python).values())
    rounds = options.rounds or (2 if quick else 3)
    regime = options.regime or ("two" if quick else None)
    is_whole = not (quick or options.workload or options.contender)
    return Plan(
        contenders=_only(contenders(), options.contender),
        workloads=_only(workloads(), options.workload),
        pythons=available[:1] if quick and not options.python else available,
        loops=options.loop or (["asyncio"] if quick else ["asyncio", "uvloop"]),
        rounds=rounds,
        close_rounds=3 * rounds if is_whole else 0,
        other_rounds=rounds if options.rounds else min(rounds, 2),
        regimes=[name for name in REGIMES if regime in (None, name.split()[0])],
        effort=options.effort or (0.1 if quick else 1.0),
    )


def _only(found: dict[str, T], names: list[str] | None) -> dict[str, T]:
    return {name: each for name, each in found.items() if names is None or name in names}


def _report(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks report", description="Write RESULTS.md and its pictures from a result."
    )
    parser.add_argument("result", type=Path, metavar="FILE")
    parser.add_argument("--into", type=Path, default=ROOT, metavar="FOLDER", help="where to (default: benchmarks/)")
    options = parser.parse_args(arguments)
    try:
        results = Results.load(options.result)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{parser.prog}: error: {options.result} is no result: {error}", file=sys.stderr)
        return 2
    print(write_report(results, options.into))
    return 0


if __name__ == "__main__":
    sys.exit(main())
