"""Instruments every pool of a program without a change to its code: `opentelemetry-instrument python app.py`.

OpenTelemetry finds it under the entry point group `opentelemetry_instrumentor`; a program may also call
`AioSQLitePoolInstrumentor().instrument()` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from aiosqlitepool import subscribe_all

from .opentelemetry import OpenTelemetrySubscriber

try:
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
except ModuleNotFoundError as _error:
    hint = "AioSQLitePoolInstrumentor needs opentelemetry-instrumentation: pip install 'aiosqlitepool[opentelemetry]'"
    raise ModuleNotFoundError(f"{hint} ({_error})", name=_error.name) from _error

__all__ = ["AioSQLitePoolInstrumentor"]


class AioSQLitePoolInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Attaches an `OpenTelemetrySubscriber` to every pool of the process, present and future."""

    _detach: Callable[[], None]

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return the packages that must be installed: none but this one, which is imported already."""
        return ()

    def _instrument(self, **options: Any) -> None:
        # The arguments of `instrument()`; `opentelemetry-instrument` passes none.
        self._detach = subscribe_all(OpenTelemetrySubscriber(**options))

    def _uninstrument(self, **options: Any) -> None:
        # The base class calls this only after `_instrument`.
        self._detach()
        del self._detach
