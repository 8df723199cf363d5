"""The parent of all events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = ["PoolEvent"]


@dataclass(slots=True)
class PoolEvent:
    """Parent of all events. Subscribing to it subscribes to every event."""

    name: ClassVar[str] = ""
    pool: str
