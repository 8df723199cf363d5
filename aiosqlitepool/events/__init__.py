"""The events that a pool emits: plain slotted dataclasses. Their names are stable and part of the public API.

Every event carries `pool`, the pool's name. All times are seconds, floats. Connections are numbered from 1 in the
order in which their pool opened them. A handler runs in the task that the event belongs to, after the pool's state has
changed: inside a handler, `pool.stats()` includes the change. Handlers share an event and must not change it.
`PoolTimings` and `StatementTimings` are batches, not events: subscribe to them by name to count many acquires or
statements at the cost of one call.
"""

from __future__ import annotations

from typing import Final

from .. import kinds, timings
from ..errors import ErrorInfo
from ..kinds import *
from ..timings import *
from . import base, database, pool, statements
from .base import *
from .database import *
from .pool import *
from .statements import *

__all__ = ["ErrorInfo", "event_types"]
__all__ += kinds.__all__
__all__ += timings.__all__
__all__ += base.__all__
__all__ += pool.__all__
__all__ += database.__all__
__all__ += statements.__all__


def event_types() -> tuple[type[PoolEvent], ...]:
    """Return every event type, in the order of definition."""
    # Not __subclasses__(): a slotted dataclass is a second class, and the first stays in that list.
    return _EVENTS


_types = [each for module in (pool, database, statements) for each in vars(module).values() if isinstance(each, type)]
_EVENTS: Final = tuple(each for each in _types if issubclass(each, PoolEvent) and each is not PoolEvent)
