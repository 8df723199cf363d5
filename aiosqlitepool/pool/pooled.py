"""One connection as the pool knows it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, TypeVar

from ..driver import Adapter, Connection
from .settings import PoolSettings

if TYPE_CHECKING:
    from .lease import Lease
    from .slots import Slot

__all__ = ["PooledConnection"]

C = TypeVar("C", bound=Connection)

# Lifetimes are shortened by up to a tenth, along the golden ratio: spread as evenly as can be over any number of
# connections, so that they do not all expire together, and the same in every run.
_JITTER = 0.1
_GOLDEN = (math.sqrt(5) - 1) / 2


class PooledConnection(Generic[C]):
    """A connection and what the pool notes about it. All times are readings of the pool's clock."""

    __slots__ = (
        "_check_after",
        "check_time",
        "checked_at",
        "create_time",
        "created_at",
        "expires_at",
        "good_until",
        "idle_since",
        "lease",
        "link",
        "number",
        "raw",
        "slot",
    )

    def __init__(
        self,
        slot: Slot[PooledConnection[C]],
        number: int,
        raw: C,
        link: Adapter,
        *,
        began: float,
        now: float,
        settings: PoolSettings,
    ) -> None:
        self.slot: Slot[PooledConnection[C]] = slot
        self.number: int = number
        self.raw: C = raw
        self.link: Adapter = link
        self.created_at: float = now
        self.idle_since: float = now
        self.create_time: float = now - began
        self.check_time: float = 0.0
        jitter = 1.0 - _JITTER * (number * _GOLDEN % 1.0)
        lifetime = settings.max_lifetime
        self.expires_at: float = math.inf if lifetime is None else now + lifetime * jitter
        self._check_after = math.inf if settings.health_check_after is None else settings.health_check_after
        self.checked(now)
        self.lease: Lease[C] | None = None

    def checked(self, now: float) -> None:
        """Note that it was found well, and until when nobody need look at it when it comes back."""
        self.checked_at: float = now
        self.good_until: float = min(self.expires_at, now + self._check_after)

    def __repr__(self) -> str:
        return f"<connection {self.number}>"
