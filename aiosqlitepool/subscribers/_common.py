"""Which trace the current task is in, for subscribers that must not need OpenTelemetry.

If the program never imported OpenTelemetry, nothing can have made a span current; so this imports nothing.
"""

from __future__ import annotations

import sys

__all__ = ["current_trace"]


def current_trace(*, sampled_only: bool = False) -> dict[str, str] | None:
    """`trace_id` and `span_id` of the current span in hexadecimal, or `None` without one (or without a sampled one)."""
    get_current_span = getattr(sys.modules.get("opentelemetry.trace"), "get_current_span", None)
    if get_current_span is None:
        return None
    context = get_current_span().get_span_context()
    if not context.is_valid or (sampled_only and not context.trace_flags.sampled):
        return None
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
