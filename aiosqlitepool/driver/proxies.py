"""What tracers put around connections and cursors: find the object behind a proxy. Knows no tracer by name."""

from __future__ import annotations

import gc
import types
from typing import Final, TypeVar, cast

__all__ = ["held"]

T = TypeVar("T")

# How many objects are looked at: those of a proxy, and of a proxy of a proxy.
_FEW: Final = 256


def held(value: object, kind: type[T]) -> T | None:
    """Return `value`, or the object of this kind that it holds: in a field, a slot or, for a proxy of a proxy, deeper.

    Asks the garbage collector: attributes of a proxy may be code of the program's.
    """
    seen: list[object] = [value]
    for each in seen:
        if issubclass(type(each), kind):
            return cast(T, each)
        if len(seen) < _FEW and type(each) not in _HOLD_NO_PROXY:
            seen += gc.get_referents(each)
    return None


# What a proxy is not, and what leads from it to other objects of the program.
_HOLD_NO_PROXY: Final = (type, types.ModuleType, types.FunctionType, str, bytes, int, float, list, tuple, set)
