"""Counting what the interpreter does, instead of the time it takes: the same on any machine, however busy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import aiosqlitepool

__all__ = ["Costs", "counted"]

_PACKAGE = str(Path(aiosqlitepool.__file__).parent)


@dataclass
class Costs:
    """What code of the package did in this thread: bytecode instructions, and calls of Python and C functions."""

    instructions: int = 0
    calls: int = 0


@contextmanager
def counted() -> Iterator[Costs]:
    """Count what the package does inside the block. Whoever traces or profiles already goes on afterwards."""
    costs = Costs()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode":
            costs.instructions += 1
        elif not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return trace

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "c_call") and frame.f_code.co_filename.startswith(_PACKAGE):
            costs.calls += 1

    before = sys.gettrace(), sys.getprofile()
    # In this order: what follows is not counted, and profile is not traced.
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        yield costs
    finally:
        sys.setprofile(before[1])
        sys.settrace(before[0])
