"""What one file says of another is so: Prometheus' files, and what the containers are given."""

from __future__ import annotations

import yaml

from .shipped import METRICS_DIR


def test_every_file_that_prometheus_is_pointed_to_exists() -> None:
    config = yaml.safe_load((METRICS_DIR / "prometheus.yml").read_text())
    discovered = [*config["scrape_configs"], *config["alerting"]["alertmanagers"]]
    files = config["rule_files"] + [
        file for each in discovered for source in each["file_sd_configs"] for file in source["files"]
    ]
    assert len(files) == 4
    assert [file for file in files if not (METRICS_DIR / file).is_file()] == []


def test_no_group_of_rules_has_the_name_of_another_one() -> None:
    names = [
        group["name"]
        for file in ("rules.yml", "alerts.yml")
        for group in yaml.safe_load((METRICS_DIR / file).read_text())["groups"]
    ]
    assert sorted(names) == sorted(set(names))
