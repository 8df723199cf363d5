# /// script
# dependencies = ["aiosqlite", "uvloop"]
# [tool.bench]
# title = "this pool, Prometheus"
# tree = ["prometheus"]
# ///
"""The pool of the working tree with one subscriber: Prometheus metrics, scraped every second.

Prometheus itself asks every 15 seconds or so. A round is shorter than that, and what is put off until a scrape would
cost nothing at all.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

from .this_pool import ThisPool


class ThisPoolPrometheus(ThisPool):
    def subscribers(self) -> Iterable[Any]:
        # A registry of its own, for each round opens a pool anew.
        registry = CollectorRegistry()
        self._done = threading.Event()
        self._scraper = threading.Thread(target=self._scrape, args=(registry,), daemon=True)
        self._scraper.start()
        return (PrometheusSubscriber(registry=registry),)

    def _scrape(self, registry: CollectorRegistry) -> None:
        while not self._done.wait(1.0):
            generate_latest(registry)

    async def close(self) -> None:
        self._done.set()
        self._scraper.join()
        await super().close()


contender = ThisPoolPrometheus
