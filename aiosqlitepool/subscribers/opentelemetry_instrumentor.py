"""Observes every pool of a program without a line of its code: `opentelemetry-instrument python app.py`.

Found by OpenTelemetry under the entry point group `opentelemetry_instrumentor`; a program may also call
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
    """Attaches an `OpenTelemetrySubscriber` to every pool, those that are alive and those made later."""

    _detach: Callable[[], None]

    def instrumentation_dependencies(self) -> Collection[str]:
        """What must be installed for this to make sense: nothing but this package, which is imported already."""
        return ()

    def _instrument(self, **options: Any) -> None:
        # What `instrument()` was given goes to the subscriber; `opentelemetry-instrument` gives nothing.
        self._detach = subscribe_all(OpenTelemetrySubscriber(**options))

    def _uninstrument(self, **options: Any) -> None:
        # Called only after `_instrument`.
        self._detach()
        del self._detach
