"""Where a task stands: the lines of code that it awaits at, outermost first. Knows tasks, nothing of pools."""

from __future__ import annotations

import asyncio
import gc
import linecache
import os
import sys
import sysconfig
from collections.abc import Iterator
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any

__all__ = ["stack_of"]

# A task that awaits deeper than this is shown by its innermost frames.
_DEEPEST = 40

# What can be awaited, or stands between two that are: the type, its frame, and what it awaits.
_AWAITED = (
    (CoroutineType, "cr_frame", "cr_await"),
    (GeneratorType, "gi_frame", "gi_yieldfrom"),
    (AsyncGeneratorType, "ag_frame", "ag_await"),
)
_KINDS = tuple(kind for kind, _, _ in _AWAITED)

# Where Python's own modules and installed packages lie.
_FOLDERS = ("stdlib", "platstdlib", "purelib", "platlib")
_LIBRARIES = tuple({os.path.join(sysconfig.get_path(folder), "") for folder in _FOLDERS})

Line = dict[str, str | int]


def stack_of(task: asyncio.Task[Any]) -> list[Line]:
    """The frames of a task that waits, as `file`, `line`, `function` and `code`; none if it is done.

    `own` says whether it is the program's own code, not Python's or an installed package's.
    """
    if task.done():
        return []
    frames = list(_frames(task.get_coro()))[-_DEEPEST:]
    return [_line(frame) for frame in frames]


def _frames(awaited: Any) -> Iterator[FrameType]:
    # Task.get_stack() gives a suspended coroutine's own frame only. What it awaits is a chain of coroutines, generators
    # and asynchronous generators, each of which names its frame and the next in its own way.
    while awaited is not None:
        for kind, frame, onward in _AWAITED:
            if isinstance(awaited, kind):
                if getattr(awaited, frame) is None:
                    return
                yield getattr(awaited, frame)
                awaited = getattr(awaited, onward)
                break
        else:
            awaited = _wrapped(awaited)


def _wrapped(awaited: object) -> object | None:
    """What `__anext__()` of a generator or `__await__()` of a coroutine stands for: they do not tell by themselves."""
    return next((each for each in gc.get_referents(awaited) if isinstance(each, _KINDS)), None)


def _line(frame: FrameType) -> Line:
    code, number = frame.f_code, frame.f_lineno or 0
    return {
        "file": _shortened(code.co_filename),
        "line": number,
        "function": code.co_qualname,
        "own": not code.co_filename.startswith(_LIBRARIES),
        "code": linecache.getline(code.co_filename, number, frame.f_globals).strip(),
    }


def _shortened(path: str) -> str:
    """The path below the directory that it was imported from."""
    inside = [folder for folder in sys.path if folder and path.startswith(os.path.join(folder, ""))]
    return os.path.relpath(path, max(inside, key=len)) if inside else path
