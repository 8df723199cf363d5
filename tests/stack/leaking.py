"""The service of the README, observed as the example is, with one endpoint more, which never releases its connection.

    DATABASE=service.db TIME_SCALE=0.2 uvicorn tests.stack.leaking:app

All times of its settings are scaled by TIME_SCALE, as `export --time-scale` scales those of the rules.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from fastapi import FastAPI

from aiosqlitepool import SQLiteDatabase
from examples.fastapi_service import telemetry

README = Path(__file__).parents[2] / "README.md"
LEAKING, STATEMENT = "/report/{name}", "SELECT count(*) FROM users WHERE name LIKE ?"
# The settings that are a time after which a caller, or the pool, no longer waits.
TIMES = ("acquisition_timeout", "reader_warn_after", "writer_warn_after")


def readme_service() -> ModuleType:
    """The program `service.py` of the README, as a module."""
    (source,) = re.findall(r"^## FastAPI$.*?^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    module = ModuleType("service")
    sys.modules["service"] = module  # FastAPI looks up the types of its functions there
    exec(compile(source, README, "exec"), module.__dict__)
    return module


def scaled_database(time_scale: float, path: str, **settings: Any) -> SQLiteDatabase:
    """A database with these settings, and with the defaults of the others, with scaled times."""
    defaults = inspect.signature(SQLiteDatabase).parameters
    times = {name: time_scale * settings.get(name, defaults[name].default) for name in TIMES}
    return SQLiteDatabase(path, **{**settings, **times})


def make_app(time_scale: float) -> FastAPI:
    service = readme_service()
    vars(service)["SQLiteDatabase"] = partial(scaled_database, time_scale)
    app: FastAPI = service.app

    async def report(name: str, conn: Any) -> None:
        await conn.execute_fetchall(STATEMENT, (f"{name}%",))
        await asyncio.Event().wait()  # for a service that never answers

    report.__annotations__ = {"name": str, "conn": service.Reading, "return": None}
    app.add_api_route(LEAKING, report)
    telemetry.observe(app)
    return app


if "TIME_SCALE" in os.environ:
    app = make_app(float(os.environ["TIME_SCALE"]))
