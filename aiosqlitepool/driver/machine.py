"""The clock, and two counters of the operating system: how often it took the processor away, and reads from a disk.

By them `loop_work` tells work that is slow from work that only had to wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

try:
    from resource import RUSAGE_SELF, RUSAGE_THREAD, getrusage
except ImportError:  # pragma: no cover - on macOS and Windows, which do not count by thread

    def _preemptions() -> int:
        return 0

    def _disk_reads() -> int:
        return 0
else:

    def _preemptions() -> int:
        return getrusage(RUSAGE_THREAD).ru_nivcsw

    def _disk_reads() -> int:
        usage = getrusage(RUSAGE_SELF)
        return usage.ru_inblock + usage.ru_majflt


__all__ = ["Machine"]


@dataclass(frozen=True, slots=True)
class Machine:
    """The clock in seconds, and two counters of the system, which take 2 µs to ask.

    `preemptions()` is how often it took the processor from this thread. `disk_reads()` grows when any thread reads from
    a disk what is not in memory.
    """

    clock: Callable[[], float] = perf_counter
    preemptions: Callable[[], int] = _preemptions
    disk_reads: Callable[[], int] = _disk_reads
