"""What the rules cost a Prometheus with a fleet: `python -m tests.metrics.scale --instances 250 500 1000`.

The series of a real scrape, three pools, are written for each instance into Prometheus' storage, with what the rules
have recorded of each and read again, up to the moment when it starts. One instance of a hundred has every trouble at
once, so that its alerts are evaluated and written, too. Then a real Prometheus evaluates the shipped rules, and says
how long each took. Not a test: it takes minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from prometheus_client import CollectorRegistry

from examples.stack_local.programs import prometheus

from ..support.debian import ask
from .conftest import scraped_alive
from .shipped import EXPRESSIONS, METRICS_DIR

# Seconds between two samples: less than the 15 of a real scrape, because while Prometheus evaluates the rules, no new
# ones come, and the windows lose a fifth of what they read.
_SCRAPE_INTERVAL = 12
# Seconds between two evaluations, as shipped, and for a group with an interval of its own; and how many are measured:
# for less time than the age at which samples are stale.
_CYCLE = 15
_INTERVALS = {"1m": 60}
_ROUNDS = 8
# Seconds that it takes to store an instance, at least: Prometheus must start when the samples end.
_STORING = 0.12
# Minutes of history that every series has: the shortest window that rules read, and a little more.
_MINUTES = 6

# The name of a sample, its labels, its value, and on how many instances of a hundred it rises.
Series = tuple[str, str, float, int]


def asked_for() -> frozenset[str]:
    """The scraped series that the rules ask for, by name."""
    names = re.compile(r"(?<![\w:])(?:db_client|aiosqlitepool)_\w+(?=[{\[)\s])(?!\s*=)")
    return frozenset(name for expression in EXPRESSIONS.values() for name in names.findall(expression))


def windows() -> dict[str, int]:
    """Minutes that rules read of the series of instances, scraped or recorded, by name: of several the longest."""
    window = re.compile(r"(?<![\w:])((?:instance_pool:)?(?:db_client|aiosqlitepool)_[\w:]+)(?:{[^}]*})?\[(\d+)([mh])\]")
    found = defaultdict[str, int](int)
    for expression in EXPRESSIONS.values():
        for name, number, unit in window.findall(expression):
            found[name] = max(found[name], int(number) * {"m": 1, "h": 60}[unit])
    return dict(found)


def series_of(scrape: str, names: frozenset[str]) -> list[Series]:
    """Name, labels, value of each sample that the rules ask for, and where it rises.

    It rises on 0 of a hundred instances (a level), 1 (a trouble) or 100 (work).
    """
    found = re.findall(r"^(\w+)\{(.*)\} (\S+)$", scrape, re.MULTILINE)
    troubles = re.compile("error|fail|timeouts|rollbacks|slow|leaks|abandoned|busy|rolled_back")

    def where(name: str, labels: str) -> int:
        if not re.search(r"_(total|count|sum|bucket)\Z", name) or name == "db_client_connection_count":
            return 0
        return 1 if troubles.search(name + labels) else 100

    return [(name, labels, float(value), where(name, labels)) for name, labels, value in found if name in names]


def recorded(series: Sequence[Series], names: Iterable[str]) -> list[Series]:
    """What rules have recorded of these series for each instance, of those of `names` that are recorded: a level."""
    metrics = {name.split(":")[1]: name for name in names if ":" in name}
    pool = re.compile(r'db_client_connection_pool_name="[^"]*"')
    found = {(metrics[name], pool.findall(labels)[0]): value for name, labels, value, _ in series if name in metrics}
    return [(name, labels, value, 0) for (name, labels), value in found.items()]


def lines(series: Sequence[Series], instances: int, seconds: int, now: float) -> Iterator[str]:
    """The samples of all instances, as OpenMetrics text without its end."""
    times = [int(now) - ago for ago in range(seconds, 0, -_SCRAPE_INTERVAL)]
    for name, labels, value, rises in series:
        levels, rising = ([f"}} {value + step * place} {at}\n" for place, at in enumerate(times)] for step in (0, 7))
        for number in range(instances):
            head = f'{name}{{{labels},job="api",instance="10.0.{number // 250}.{number % 250}:8000"'
            yield "".join(head + sample for sample in (rising if number % 100 < rises else levels))


def stored(folder: Path, instances: int, longest: int) -> int:
    """Write the samples that the rules read, of at most `longest` minutes; return how many are scraped series."""
    with tempfile.TemporaryDirectory() as live:
        scrape = asyncio.run(scraped_alive(Path(live), CollectorRegistry()))
    now = time.time() + instances * _STORING * (1 + longest / 60)
    every, read = series_of(scrape, asked_for()), windows()
    with (folder / "samples.txt").open("w") as text:
        for each in [*every, *recorded(every, read)]:
            minutes = max(_MINUTES, min(longest, read.get(each[0], 0)))
            text.writelines(lines([each], instances, minutes * 60, now))
        text.write("# EOF\n")
    blocks = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet"]
    subprocess.run([*blocks, str(folder / "samples.txt"), str(folder / "prometheus")], check=True, timeout=600)
    (folder / "samples.txt").unlink()
    early = now - time.time()
    if early < 0:
        print(f"{instances} instances: the last sample is {-early:.0f} s old", file=sys.stderr, flush=True)
    time.sleep(max(0.0, early))
    return len(every) * instances


class Cost(NamedTuple):
    """What an evaluation of all groups takes: seconds of CPU, wall time by group and rule, samples read by rule."""

    cpu: float
    groups: dict[str, float]
    rules: dict[str, float]
    samples: dict[str, int]

    @property
    def wall(self) -> float:
        """Seconds in a cycle: a group with a longer interval of its own counts less."""
        intervals = {group["name"]: _INTERVALS.get(group.get("interval"), _CYCLE) for group in shipped_groups()}
        return sum(seconds * _CYCLE / intervals[name] for name, seconds in self.groups.items())


def shipped_groups() -> list[dict[str, Any]]:
    """The groups of the shipped rules and alerts."""
    files = [METRICS_DIR / name for name in ("rules.yml", "alerts.yml")]
    return [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]


def evaluated(folder: Path) -> Cost:
    """Let Prometheus evaluate the shipped rules for two minutes, as often as shipped; return the medians."""
    files = [str(METRICS_DIR / name) for name in ("rules.yml", "alerts.yml")]
    config = {"global": {"evaluation_interval": f"{_CYCLE}s"}, "rule_files": files}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    of_groups, of_rules = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    with prometheus(folder / "prometheus.yml", folder) as server:
        time.sleep(_CYCLE)  # so that its start does not count
        cpu = cpu_used(server.url)
        for _ in range(_ROUNDS):
            time.sleep(_CYCLE)
            for name, seconds in durations(server.url).items():
                of_groups[name].append(seconds)
            for rule in evaluated_rules(server.url):
                of_rules[name_of(rule)].append(rule["evaluationTime"])
        cpu = (cpu_used(server.url) - cpu) / _ROUNDS
        samples = {name_of(rule): samples_read(server.url, rule["query"]) for rule in evaluated_rules(server.url)}
    return Cost(cpu, medians(of_groups), medians(of_rules), samples)


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """The median by name, of those that were evaluated: before, the time is 0."""
    return {name: statistics.median([each for each in all_ if each] or [0.0]) for name, all_ in times.items()}


def evaluated_rules(url: str) -> list[dict[str, Any]]:
    """All rules, none of which may have failed."""
    rules = [rule for group in groups(url) for rule in group["rules"]]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    return rules


def name_of(rule: dict[str, Any]) -> str:
    """The name of a rule, with the label that tells apart those of one name."""
    return f"{rule['name']} {rule.get('labels', {}).get('quantile', '')}".strip()


def samples_read(url: str, query: str) -> int:
    """How many samples a query reads: its cost, whatever else the machine does."""
    found: int = ask(f"{url}/api/v1/query", query=query, stats="all")["data"]["stats"]["samples"][
        "totalQueryableSamples"
    ]
    return found


def metrics(url: str) -> str:
    """The metrics of Prometheus itself."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=120) as answer:
        text: str = answer.read().decode()
    return text


def durations(url: str) -> dict[str, float]:
    """Seconds that the last evaluation of each group took."""
    found = re.findall(
        r"^prometheus_rule_group_last_duration_seconds\{[^}]*;([^;\"]+)\"\} (\S+)$", metrics(url), re.MULTILINE
    )
    return {name: float(seconds) for name, seconds in found}


def cpu_used(url: str) -> float:
    """Seconds of CPU that Prometheus has used."""
    (cpu,) = re.findall(r"^process_cpu_seconds_total (\S+)$", metrics(url), re.MULTILINE)
    return float(cpu)


def groups(url: str) -> list[dict[str, Any]]:
    """The groups of rules, as Prometheus shows them."""
    with urllib.request.urlopen(f"{url}/api/v1/rules", timeout=120) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["groups"]
    return found


def main() -> None:
    """Measure, and print the groups and the most expensive rules."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, nargs="+", default=[250, 500, 1000])
    parser.add_argument("--longest", type=int, default=60, help="minutes of history, of what longer windows read")
    parser.add_argument("--show", type=int, default=12, help="how many rules to print")
    options = parser.parse_args()
    costs = {}
    for instances in options.instances:
        with tempfile.TemporaryDirectory() as place:
            number = stored(Path(place), instances, options.longest)
            costs[instances] = evaluated(Path(place))
        cost = costs[instances]
        print(
            f"{instances} instances, {number:,} series: {cost.wall:.2f} s a cycle, {cost.cpu:.2f} s of CPU", flush=True
        )
    last = costs[max(costs)]
    for what, unit, factor in (("groups", "ms", 1000.0), ("rules", "ms", 1000.0), ("samples", "thousands", 0.001)):
        print(f"\n{f'{what}, {unit}':80}", *(f"{instances:>9}" for instances in costs))
        for name in sorted(getattr(last, what), key=lambda name: -getattr(last, what)[name])[: options.show]:
            print(f"{name:80}", *(f"{getattr(cost, what).get(name, 0) * factor:9.1f}" for cost in costs.values()))


if __name__ == "__main__":
    main()
