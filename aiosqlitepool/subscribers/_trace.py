"""Which trace the current task is in, for subscribers that must not need OpenTelemetry.

If the program never imported OpenTelemetry, nothing can have made a span current; so this imports nothing.
"""

from __future__ import annotations

import sys
import time

__all__ = ["Glances", "current_trace"]

# Seconds. A scrape or an export, every ten seconds or more, shows one exemplar of each bucket.
_BETWEEN_GLANCES = 0.01


class Glances:
    """Limits how often waits that are frequent and short look for their trace, which costs more than counting them."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0.0

    def due(self) -> bool:
        """Whether to look, this time."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _BETWEEN_GLANCES
        return True


def current_trace(*, sampled_only: bool = False) -> dict[str, str] | None:
    """`trace_id` and `span_id` of the current span in hexadecimal, or `None` without one (or without a sampled one)."""
    get_current_span = getattr(sys.modules.get("opentelemetry.trace"), "get_current_span", None)
    if get_current_span is None:
        return None
    context = get_current_span().get_span_context()
    if not context.is_valid or (sampled_only and not context.trace_flags.sampled):
        return None
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
