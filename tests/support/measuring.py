"""Whether coverage measures, where that costs more than it tells."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["unmeasured"]


@contextmanager
def unmeasured() -> Iterator[None]:
    """Stop measuring coverage in this thread, and in those that it starts, until the block ends."""
    module = sys.modules.get("coverage")
    measuring = None if module is None else module.Coverage.current()
    if measuring is not None:
        measuring.stop()
    try:
        yield
    finally:
        if measuring is not None:
            with warnings.catch_warnings(action="ignore"):  # that the package is imported already
                measuring.start()
