"""`create_async_engine`: one call for a URL, a pool or a database."""

from __future__ import annotations

import os
from typing import Any

import aiosqlite
import sqlalchemy.ext.asyncio
from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from ..database import SQLiteDatabase
from ..pool import SQLiteConnectionPool
from .dialect import PooledDialect
from .pools import AioSQLitePool, LeasingPool, RoutingPool

__all__ = ["create_async_engine"]

Target = str | os.PathLike[str] | URL | SQLiteConnectionPool[aiosqlite.Connection] | SQLiteDatabase

_DRIVER = f"sqlite+{PooledDialect.driver}"


def create_async_engine(target: Target, **engine_options: Any) -> AsyncEngine:
    """Create an engine of SQLAlchemy's over a pool of this package.

    Args:
        target: a URL of SQLite, with any driver, or the path of a file: the engine has a pool of its own, which
            `engine.dispose()` closes. A `SQLiteConnectionPool` of aiosqlite connections, or a `SQLiteDatabase`: its
            owner opens and closes it.
        engine_options: those of `sqlalchemy.ext.asyncio.create_async_engine()`. For a URL or a path also
            `pool_settings`, a mapping of further arguments of its `SQLiteConnectionPool`.

    Raises `TypeError` for a target of another kind, `ValueError` for the URL of another database, and what SQLAlchemy
    raises, `TypeError` for an option that this target cannot have.
    """
    if isinstance(target, SQLiteDatabase | SQLiteConnectionPool):
        return _over(target, engine_options)
    url = _url(target)
    if engine_options.keys().isdisjoint({"pool", "poolclass"}) and PooledDialect.get_pool_class(url) is AioSQLitePool:
        given = engine_options.get("pool_settings") or {}
        engine_options["pool_settings"] = {"name": os.path.basename(url.database or ""), **given}
    return sqlalchemy.ext.asyncio.create_async_engine(url, **engine_options)


def _over(
    target: SQLiteDatabase | SQLiteConnectionPool[aiosqlite.Connection], engine_options: dict[str, Any]
) -> AsyncEngine:
    if "connect_args" in engine_options:
        raise TypeError(f"connect_args: the connections are opened by {target!r}, which has such arguments of its own")
    pool = RoutingPool(target) if isinstance(target, SQLiteDatabase) else LeasingPool(target)
    return sqlalchemy.ext.asyncio.create_async_engine(f"{_DRIVER}://", pool=pool, **engine_options)


def _url(target: object) -> URL:
    if isinstance(target, os.PathLike):
        return URL.create(_DRIVER, database=os.fsdecode(target))
    if isinstance(target, str) and "://" not in target:
        return URL.create(_DRIVER, database=target)
    if not isinstance(target, str | URL):
        raise TypeError(
            "target must be a URL, a path, a SQLiteConnectionPool or a SQLiteDatabase, not "
            f"{target!r} ({type(target).__name__})"
        )
    url = make_url(target)
    if url.get_backend_name() != "sqlite":
        raise ValueError(f"target must be a URL of SQLite, such as 'sqlite:///app.db', not {url!r}")
    return url.set(drivername=_DRIVER)
