"""What a copy or a pickle of a value leaves behind, and what can be neither copied nor pickled."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Never, ParamSpec, TypeVar

__all__ = ["CapturedContext", "NotCopyable"]

P = ParamSpec("P")
R = TypeVar("R")


class CapturedContext(Mapping[contextvars.ContextVar[Any], Any]):
    """The `contextvars.Context` that belongs to a value, such as a holder. It is used as a context is.

    Python can neither pickle nor deep-copy a context. A pickle or a deep copy of the value has `None` instead.
    """

    __slots__ = ("_context",)

    def __init__(self, context: contextvars.Context) -> None:
        self._context = context

    def run(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn(*args, **kwargs)` in the context, and return its result."""
        return self._context.run(fn, *args, **kwargs)

    def __getitem__(self, variable: contextvars.ContextVar[Any]) -> Any:
        return self._context[variable]

    def __iter__(self) -> Iterator[contextvars.ContextVar[Any]]:
        return iter(self._context)

    def __len__(self) -> int:
        return len(self._context)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


class NotCopyable:
    """Refuses to be copied and pickled: it belongs to one process, and to the event loop that uses it."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: Any) -> Never:
        raise TypeError(
            f"a {type(self).__name__.lstrip('_')} cannot be copied or pickled: its connections belong to one process "
            "and one event loop. Pass the path of the database, and make one of its own where it is used"
        )
