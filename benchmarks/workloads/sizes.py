"""The same acquire and release, idle, in pools of 1 to 100 open connections: does a large pool cost more?"""

from __future__ import annotations

import gc
from contextlib import AsyncExitStack
from time import perf_counter

from ..contenders import Contender
from ..inside.idle import connect_idle
from ..inside.task import Measured, Task, UnsuitableError
from . import Figure, Workload, takes_factory


async def measure(contender: Contender, size: int, task: Task) -> Measured:
    if not takes_factory(contender):
        raise UnsuitableError("takes no connection factory")
    await contender.open_with(connect_idle, size)  # type: ignore[attr-defined]
    cycles = task.count(10_000)
    try:
        async with AsyncExitStack() as all_of_them:
            for _ in range(size):
                await all_of_them.enter_async_context(contender.connection())
        contender.settle()
        gc.collect()
        began = perf_counter()
        for _ in range(cycles):
            async with contender.connection():
                pass
        seconds = perf_counter() - began
        contender.settle()
        return Measured({"cycle": 1e6 * seconds / cycles})
    finally:
        await contender.close()


workload = Workload(
    title="Cost against the size of the pool",
    cases={str(size): size for size in (1, 5, 20, 100)},
    measure=measure,
    figures=(Figure("cycle", "µs per cycle", 2),),
    reference="this_pool",
    seconds=0.05,
)
