"""What the rules cost a Prometheus with a fleet: `python -m tests.metrics.scale --instances 1000`.

The series of a real scrape, three pools, are written for each instance into Prometheus' storage, up to now. One
instance of a hundred has every trouble at once, so that its alerts are evaluated and written, too. Then a real
Prometheus evaluates the shipped rules, and says how long each took. Not a test: it takes minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from examples.stack_local.programs import prometheus

from ..support.debian import wait_for
from .conftest import scraped_alive
from .shipped import EXPRESSIONS, METRICS_DIR

_SCRAPE_INTERVAL = 15
# Seconds between two evaluations, and how many are measured: less than the age at which samples are stale.
_EVERY = 10
_ROUNDS = 7
_LONG = ("db_client_connection_timeouts_total", "db_client_connection_wait_time_seconds_count")


def asked_for() -> frozenset[str]:
    """The scraped series that the rules ask for, by name."""
    names = re.compile(r"(?<![\w:])(?:db_client|aiosqlitepool)_\w+(?=[{\[)\s])(?!\s*=)")
    return frozenset(name for expression in EXPRESSIONS.values() for name in names.findall(expression))


def series_of(scrape: str, names: frozenset[str]) -> list[tuple[str, str, float, int]]:
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


def lines(series: Sequence[tuple[str, str, float, int]], instances: int, seconds: int, now: float) -> Iterator[str]:
    """The samples of all instances, as OpenMetrics text without its end."""
    times = [int(now) - ago for ago in range(seconds, 0, -_SCRAPE_INTERVAL)]
    for name, labels, value, rises in series:
        levels, rising = ([f"}} {value + step * place} {at}\n" for place, at in enumerate(times)] for step in (0, 7))
        for number in range(instances):
            head = f'{name}{{{labels},job="api",instance="10.0.{number // 250}.{number % 250}:8000"'
            yield "".join(head + sample for sample in (rising if number % 100 < rises else levels))


def stored(folder: Path, instances: int, long: int, minutes: int) -> int:
    """Write the samples of `minutes`, and of the longest windows those of `long`; return how many series there are."""
    with tempfile.TemporaryDirectory() as live:
        scrape = asyncio.run(scraped_alive(Path(live), CollectorRegistry()))
    now = time.time()
    every = series_of(scrape, asked_for())
    with (folder / "samples.txt").open("w") as text:
        for each in every:
            lasts = long if each[0] in _LONG and long else minutes
            text.writelines(lines([each], instances, lasts * 60, now))
        text.write("# EOF\n")
    blocks = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet"]
    subprocess.run([*blocks, str(folder / "samples.txt"), str(folder / "prometheus")], check=True)
    (folder / "samples.txt").unlink()
    return len(every) * instances


def evaluated(folder: Path) -> tuple[float, dict[str, float]]:
    """Let Prometheus evaluate the rules again and again.

    Return the seconds of CPU of one evaluation of all groups, and by rule, the seconds that its fastest one took.
    """
    rules = [str(METRICS_DIR / name) for name in ("rules.yml", "alerts.yml")]
    config = {"global": {"evaluation_interval": f"{_EVERY}s"}, "rule_files": rules}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    of_rules = defaultdict[str, list[float]](list)
    with prometheus(folder / "prometheus.yml", folder) as server:
        wait_for("all groups", lambda: all(each["evaluationTime"] for each in groups(server.url)), within=300)
        cpu, cycles = used(server.url)
        for _ in range(_ROUNDS):
            time.sleep(_EVERY)
            for rule in (rule for group in groups(server.url) for rule in group["rules"]):
                assert rule["health"] in ("ok", "unknown"), rule
                of_rules[f"{rule['name']} {rule.get('labels', {}).get('quantile', '')}"].append(rule["evaluationTime"])
        later, more = used(server.url)
    return (later - cpu) / (more - cycles), {name: min(times) for name, times in of_rules.items()}


def used(url: str) -> tuple[float, float]:
    """Seconds of CPU that Prometheus has used, and how often it has evaluated all groups."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=120) as answer:
        text = answer.read().decode()
    (cpu,) = re.findall(r"^process_cpu_seconds_total (\S+)$", text, re.MULTILINE)
    # Of the group that is in every file's middle, and not of the one that has a longer interval.
    iterations = re.findall(
        r"^prometheus_rule_group_iterations_total\{[^}]*;aiosqlitepool\.work\"\} (\S+)$", text, re.M
    )
    missed = re.findall(
        r"^prometheus_rule_group_iterations_missed_total\{[^}]*;aiosqlitepool\.work\"\} (\S+)$", text, re.M
    )
    return float(cpu), float(iterations[0]) - sum(map(float, missed))


def groups(url: str) -> list[dict[str, Any]]:
    """The groups of rules, as Prometheus shows them."""
    with urllib.request.urlopen(f"{url}/api/v1/rules", timeout=120) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["groups"]
    return found


def main() -> None:
    """Measure, and print the groups and the ten most expensive rules."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--minutes", type=int, default=8, help="history of all series")
    parser.add_argument("--long", type=int, default=0, help="minutes of history of the series with long windows")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        began = time.monotonic()
        number = stored(Path(place), options.instances, options.long, options.minutes)
        print(
            f"{options.instances} instances, {number:,} series, stored in {time.monotonic() - began:.0f} s", flush=True
        )
        cpu, of_rules = evaluated(Path(place))
    print(f"{cpu:.2f} s of CPU for one evaluation of all groups, and for what Prometheus does meanwhile")
    for name, seconds in sorted(of_rules.items(), key=lambda each: -each[1])[:12]:
        print(f"{name:80} {seconds * 1000:9.1f} ms")


if __name__ == "__main__":
    main()
