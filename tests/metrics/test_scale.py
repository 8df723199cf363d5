"""The series with which `tests.metrics.scale` measures the rules are those that the rules ask for."""

from __future__ import annotations

import re

from aiosqlitepool.subscribers._metrics import METRICS

from .scale import asked_for, lines, recorded, series_of, windows
from .shipped import EXPRESSIONS


def test_every_scraped_series_that_a_rule_asks_for_is_written(scrape: str) -> None:
    written = {name for name, *_ in series_of(scrape, asked_for())}
    labels = {label for metric in METRICS for label in metric.labels}
    asked = set(re.findall(r"(?<![:\w])(?:db_client|aiosqlitepool)_\w+(?![:\w])", " ".join(EXPRESSIONS.values())))
    assert asked - labels == written


def test_work_rises_on_each_instance_and_troubles_on_one_of_a_hundred() -> None:
    scrape = (
        'db_client_connection_max{pool="p"} 5.0\n'
        'db_client_connection_timeouts_total{pool="p"} 1.0\n'
        'db_client_connection_use_time_seconds_count{pool="p"} 2.0\n'
    )
    series = series_of(scrape, frozenset(asked_for()))
    text = "".join(lines(series, instances=200, seconds=36, now=1_000.0)).splitlines()
    assert len(text) == 3 * 200 * 3
    last = [float(line.split()[-2]) for line in text if line.endswith(" 988")]
    # A level on each, a trouble that stays or rises, and work.
    assert [last.count(value) for value in (5.0, 1.0, 15.0, 16.0)] == [200, 198, 2, 200]
    assert text[0] == 'db_client_connection_max{pool="p",job="api",instance="10.0.0.0:8000"} 5.0 964'


def test_an_hour_of_every_instance_is_read_of_few_series_only() -> None:
    assert {name for name, minutes in windows().items() if minutes > 15} == {
        "db_client_connection_timeouts_total",
        "db_client_connection_wait_time_seconds_count",
        "instance_pool:aiosqlitepool_disk_free_bytes:min",
    }
    assert max(windows().values()) == 60


def test_what_rules_record_of_an_instance_and_read_again_is_written(scrape: str) -> None:
    read = {name for name in windows() if ":" in name}
    assert read
    series = recorded(series_of(scrape, asked_for()), windows())
    assert {name for name, *_ in series} == read
    assert len({(name, labels) for name, labels, *_ in series}) == len(series)
