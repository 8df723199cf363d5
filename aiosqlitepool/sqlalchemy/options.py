"""The execution options of the dialect: `label` and `sqlite_role`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import exc

from ..pool.settings import check_label

__all__ = ["NO_OPTIONS", "checked", "label_of", "role_of"]

NO_OPTIONS: Final[Mapping[str, Any]] = {}

_ROLES: Final = ("auto", "read", "write", "upgrade")


def checked(options: Mapping[str, Any]) -> None:
    """Raise `ArgumentError` or `TypeError` for a role or a label that cannot be one."""
    role_of(options)
    label_of(options)


def label_of(options: Mapping[str, Any]) -> str | None:
    """Return what a statement is executed for."""
    return check_label(options.get("label"))


def role_of(options: Mapping[str, Any]) -> str:
    """Return what a transaction is for: "auto" if nothing was said."""
    role: str = options.get("sqlite_role", "auto")
    if role not in _ROLES:
        raise exc.ArgumentError(f"sqlite_role must be one of {', '.join(map(repr, _ROLES))}, not {role!r}")
    return role
