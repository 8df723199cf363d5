"""The stack of a suspended task: the lines of code that it awaits at, outermost first. Knows tasks, not pools."""

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

# Frames shown of a task: its innermost ones.
_DEEPEST = 40

# The types in a chain of awaits, with the attributes for the frame and for the awaited object.
_AWAITED = (
    (CoroutineType, "cr_frame", "cr_await"),
    (GeneratorType, "gi_frame", "gi_yieldfrom"),
    (AsyncGeneratorType, "ag_frame", "ag_await"),
)
_KINDS = tuple(kind for kind, _, _ in _AWAITED)

# The directories of the standard library and of installed packages.
_FOLDERS = ("stdlib", "platstdlib", "purelib", "platlib")
_LIBRARIES = tuple({os.path.join(sysconfig.get_path(folder), "") for folder in _FOLDERS})

Line = dict[str, str | int]


def stack_of(task: asyncio.Task[Any]) -> list[Line]:
    """Return the frames of a suspended task as `file`, `line`, `function` and `code`; none if it is done.

    `own` is true for the program's code, false for the standard library and installed packages.
    """
    if task.done():
        return []
    frames = list(_frames(task.get_coro()))[-_DEEPEST:]
    return [_line(frame) for frame in frames]


def _frames(awaited: Any) -> Iterator[FrameType]:
    # Task.get_stack() returns the frame of a suspended coroutine only, not of the coroutines and generators that it
    # awaits. Each type has attributes of its own for its frame and for the object that it awaits.
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
    """Return the object behind `__anext__()` or `__await__()`: such a wrapper has no attribute for it."""
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
    """Return the path relative to the directory that it was imported from."""
    inside = [folder for folder in sys.path if folder and path.startswith(os.path.join(folder, ""))]
    return os.path.relpath(path, max(inside, key=len)) if inside else path
