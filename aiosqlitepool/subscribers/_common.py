"""What the subscribers share: detaching, locks after a fork, the current trace. Imports no telemetry library."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Iterable
from typing import Protocol

__all__ = ["Detach", "current_trace", "renew_after_fork", "together"]

Detach = Callable[[], None]


def together(detaches: Iterable[Detach]) -> Detach:
    """Return a function that calls each of these, in order."""
    every = tuple(detaches)

    def detach() -> None:
        for each in every:
            each()

    return detach


def current_trace(*, sampled_only: bool = False) -> dict[str, str] | None:
    """Return `trace_id` and `span_id` of the current span in hexadecimal.

    Returns `None` if no span is current, or if `sampled_only` and the span is not sampled.
    """
    # Looked up, not imported: in a program that never imported OpenTelemetry, no span can be current.
    get_current_span = getattr(sys.modules.get("opentelemetry.trace"), "get_current_span", None)
    if get_current_span is None:
        return None
    context = get_current_span().get_span_context()
    if not context.is_valid or (sampled_only and not context.trace_flags.sampled):
        return None
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


class Locked(Protocol):
    """An object that has a lock."""

    def renew_lock(self) -> None:
        """Replace the lock."""
        ...


_locked: weakref.WeakSet[Locked] = weakref.WeakSet()


def renew_after_fork(owner: Locked) -> None:
    """Call `owner.renew_lock()` in every child process forked from now on, while `owner` exists.

    If another thread of the parent holds the lock at the fork, nothing in the child would ever release it.
    """
    _locked.add(owner)


def _renew() -> None:
    for owner in tuple(_locked):
        owner.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
