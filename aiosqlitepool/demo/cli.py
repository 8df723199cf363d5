"""The demo's command line: its arguments, and the order of what happens.

Imports rich, by way of `report`, only once the arguments are known to be right.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .data import DEFAULT_SCALE, Database, DatabaseRefusedError, open_or_build
from .load import Run, Watch, execute, select_users, user_pages

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["main"]

_PROGRAM = "python -m aiosqlitepool demo"
_SMALLEST, _LARGEST = 0.0001, 10.0  # scales; below, a post would have more likes than there are users
_INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code: 0, 1 if the database failed, 2 for a wrong call, 130 after Ctrl-C."""
    try:
        options = _parser().parse_args(argv)
        return _run(options)
    except KeyboardInterrupt:
        return _fail("interrupted", _INTERRUPTED)
    except DatabaseRefusedError as error:
        return _fail(f"argument --path: cannot use {options.path!r}: {error}", 2)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        return _fail("it needs rich; install it with: pip install 'aiosqlitepool[demo]'", 2)
    except (OSError, sqlite3.Error) as error:
        return _fail(str(error), 1)


def _fail(message: str, code: int) -> int:
    print(f"{_PROGRAM}: error: {message}", file=sys.stderr)
    return code
