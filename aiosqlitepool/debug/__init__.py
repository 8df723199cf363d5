"""A look inside a running program: `DebugApp`, a read-only page (and the same as JSON) about its pools as they are now.

`monitor` remembers what one pool did lately, `recent` how long things took, `stacks` looks at tasks, `words` says what
an event means, `app` serves it all over ASGI, and `page/` is what a browser gets. Nothing beyond the standard library,
and nothing of a pool that a stranger could not import.
"""

from .app import DebugApp

__all__ = ["DebugApp"]
