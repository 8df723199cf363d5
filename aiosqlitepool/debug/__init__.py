"""A view into a running program: `DebugApp`, a read-only page, also as JSON, about its pools.

`monitor` records the recent events of one pool, `recent` durations, `stacks` reads the stacks of tasks, `words`
describes events, `app` serves all of it over ASGI, and `page/` has the files for the browser. Uses the standard library
and the public parts of the package only.
"""

from .app import DebugApp

__all__ = ["DebugApp"]
