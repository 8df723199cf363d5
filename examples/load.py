"""Load for the example service: users that read and write, bursts of requests, and some requests for missing rows.

    python examples/load.py http://127.0.0.1:8000 --workers 8

Waits until the service is up, prints its figures every few seconds, and runs until Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import time
from collections import Counter

import httpx

READY_WITHIN = 60.0  # seconds
SAY_EVERY = 5.0
THINK = 0.2  # seconds between two requests of a worker, on average
CROWD_EVERY = 2.0
CROWD = 40  # requests at once: more than there are connections, so that some wait


class Load:
    """Requests to one service, and how they ended."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._choose = random.Random()
        self._users: list[int] = []
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []

    async def until_ready(self) -> None:
        """Wait until the service answers."""
        async with asyncio.timeout(READY_WITHIN):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await self._client.get("/health")).is_success:
                        return
                await asyncio.sleep(0.2)

    async def one(self) -> None:
        """Send one request of a random kind."""
        chance = self._choose.random()
        user = self._choose.choice(self._users) if self._users else 1
        if chance < 0.05 or not self._users:
            answer = await self._ask("POST", "/users", {"name": f"user {self._choose.getrandbits(64):x}"})
            if answer is not None and answer.is_success:
                self._users.append(answer.json()["id"])
        elif chance < 0.15:
            await self._ask("POST", "/posts", {"user_id": user, "text": "Lorem ipsum. " * 20})
        elif chance < 0.16:
            # No such user: the writes before this error are rolled back.
            await self._ask("POST", "/posts", {"user_id": -1, "text": "into the void"})
        elif chance < 0.40:
            await self._ask("GET", "/users")
        elif chance < 0.70:
            await self._ask("GET", f"/users/{user}/posts")
        else:
            await self._ask("GET", f"/users/{user}")

    async def _ask(self, method: str, path: str, body: object = None) -> httpx.Response | None:
        began = time.monotonic()
        try:
            answer = await self._client.request(method, path, json=body)
        except httpx.TransportError as error:
            self.statuses[type(error).__name__] += 1
            await asyncio.sleep(1)
            return None
        self.seconds.append(time.monotonic() - began)
        self.statuses[str(answer.status_code)] += 1
        return answer

    async def worker(self) -> None:
        """Be one user, with a pause between requests."""
        while True:
            await self.one()
            await asyncio.sleep(self._choose.expovariate(1 / THINK))

    async def crowds(self) -> None:
        """Send many requests at once."""
        while True:
            await asyncio.sleep(self._choose.expovariate(1 / CROWD_EVERY))
            await asyncio.gather(*(self.one() for _ in range(CROWD)))

    async def report(self) -> None:
        """Print the figures."""
        while True:
            await asyncio.sleep(SAY_EVERY)
            seconds, self.seconds = sorted(self.seconds), []
            statuses, self.statuses = self.statuses, Counter()
            p99 = f"{seconds[int(len(seconds) * 0.99)] * 1000:.0f} ms" if seconds else "unknown"
            kinds = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
            print(f"{len(seconds) / SAY_EVERY:.0f} requests/s, P99 {p99}: {kinds}", flush=True)


async def run(url: str, workers: int) -> None:
    """Load the service at `url` until the task is cancelled, or a signal such as Ctrl-C arrives."""
    this = asyncio.current_task()
    assert this is not None
    with contextlib.suppress(NotImplementedError):  # on Windows, which has no such signal
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    # Directly: a proxy of the environment rarely reaches a local service.
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits, trust_env=False) as client:
        load = Load(client)
        await load.until_ready()
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(load.worker())
            group.create_task(load.crowds())
            group.create_task(load.report())


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description="Load the example service until Ctrl-C.")
    parser.add_argument("url", help="where the service is, such as http://127.0.0.1:8000")
    parser.add_argument("--workers", type=int, default=8, help="users who take turns (default: %(default)s)")
    options = parser.parse_args()
    try:
        asyncio.run(run(options.url, options.workers))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 0
    except TimeoutError:
        print(f"load.py: {options.url} did not answer within {READY_WITHIN:.0f} s", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
