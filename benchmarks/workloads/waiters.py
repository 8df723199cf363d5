"""1 to 100,000 tasks queue for the only connection, on a connection that does nothing: waiting must not cost more for
each the longer the queue is.

Time goes from the first of them starting to queue to the last having been served. Small queues are repeated,
until 20,000 were served. The garbage collector is off: what it costs depends on how many objects live, not on the pool.
"""

from __future__ import annotations

import asyncio
import gc
from time import perf_counter

from ..contenders import Contender
from ..inside.idle import connect_idle
from ..inside.task import Measured, Task, UnsuitableError
from . import Figure, Workload, takes_factory


async def measure(contender: Contender, waiters: int, task: Task) -> Measured:
    if not takes_factory(contender):
        raise UnsuitableError("takes no connection factory")
    waiters = task.count(waiters)
    repeats = max(1, task.count(20_000) // waiters)
    await contender.open_with(connect_idle, 1)  # type: ignore[attr-defined]
    gc.collect()
    gc.disable()
    try:
        await _queue_and_serve(contender, waiters)
        contender.settle()
        times = [await _queue_and_serve(contender, waiters) for _ in range(repeats)]
        queued, served = (1e6 * sum(each) / (repeats * waiters) for each in zip(*times, strict=True))
        return Measured({"waiter": queued + served, "queue": queued, "serve": served})
    finally:
        gc.enable()
        await contender.close()


async def _queue_and_serve(contender: Contender, waiters: int) -> tuple[float, float]:
    """Seconds until all queued, and from then until all were served."""
    arrived = 0

    async def borrow() -> None:
        nonlocal arrived
        arrived += 1
        async with contender.connection():
            pass

    async with contender.connection():
        began = perf_counter()
        tasks = [asyncio.create_task(borrow()) for _ in range(waiters)]
        while arrived < waiters:  # noqa: ASYNC110 - an event would be set by one of those who are measured
            await asyncio.sleep(0)
        queued = perf_counter()
    for each in tasks:
        await each
    return queued - began, perf_counter() - queued


workload = Workload(
    title="Cost against the number of waiters",
    cases={f"{waiters:,}": waiters for waiters in (1, 100, 10_000, 100_000)},
    measure=measure,
    figures=(
        Figure("waiter", "µs per waiter", 2),
        Figure("queue", "to queue, µs", 2),
        Figure("serve", "to be served, µs", 2),
    ),
    reference="this_pool",
    seconds=0.4,
)
