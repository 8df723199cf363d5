"""The logger of the core: warnings about connections, exceptions of subscribers."""

from __future__ import annotations

import logging

__all__ = ["log"]

log: logging.Logger = logging.getLogger("aiosqlitepool")
