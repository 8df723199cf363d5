"""SQLAlchemy's asyncio engine over a pool of this package: `create_async_engine`, and `AioSQLitePool`, its `poolclass`.

Importing this module registers the dialect `sqlite+aiosqlitepool`. An installed package has it registered already.
"""

from sqlalchemy.dialects import registry

from .dialect import PooledDialect
from .engine import create_async_engine
from .pools import AioSQLitePool

__all__ = ["AioSQLitePool", "PooledDialect", "create_async_engine"]

registry.register(f"sqlite.{PooledDialect.driver}", PooledDialect.__module__, PooledDialect.__name__)
