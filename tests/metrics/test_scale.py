"""The series with which `tests.metrics.scale` measures the rules are those that the rules ask for."""

from __future__ import annotations

import re

from aiosqlitepool.subscribers._metrics import METRICS

from .scale import asked_for, lines, series_of
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
