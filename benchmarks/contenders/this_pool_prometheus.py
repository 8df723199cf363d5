# /// script
# dependencies = ["aiosqlite", "uvloop"]
# [tool.bench]
# title = "this pool, Prometheus"
# tree = ["prometheus"]
# ///
"""The pool of the working tree with one subscriber: Prometheus metrics, scraped once before the clock stops.

Prometheus itself asks every 15 seconds or so. A round is shorter than that, and what is put off until a scrape would
cost nothing at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

from .this_pool import ThisPool


class ThisPoolPrometheus(ThisPool):
    def subscribers(self) -> Iterable[Any]:
        # A registry of its own, for each round opens a pool anew.
        self._registry = CollectorRegistry()
        return (PrometheusSubscriber(registry=self._registry),)

    def settle(self) -> None:
        generate_latest(self._registry)


contender = ThisPoolPrometheus
