"""The wheel in environments of its own: alone, and with each extra."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

import pytest

from .environment import Environment

README = Path(__file__).parents[2] / "README.md"
LIBRARIES = {"aiosqlite", "opentelemetry", "prometheus_client", "structlog", "rich", "sqlalchemy", "greenlet"}

Installed = Callable[[str], Environment]


@dataclass(frozen=True)
class Extra:
    """What an extra is for: the distributions it brings, how their libraries are imported, what then works."""

    brings: tuple[str, ...]
    libraries: set[str]
    modules: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


OPENTELEMETRY = Extra(
    ("opentelemetry-api", "opentelemetry-sdk", "opentelemetry-instrumentation"),
    {"opentelemetry"},
    ("aiosqlitepool.subscribers.opentelemetry", "aiosqlitepool.subscribers.opentelemetry_instrumentor"),
)
PROMETHEUS = Extra(("prometheus-client",), {"prometheus_client"}, ("aiosqlitepool.subscribers.prometheus",))
STRUCTLOG = Extra(("structlog",), {"structlog"}, ("aiosqlitepool.subscribers.structlog",))
SQLALCHEMY = Extra(("sqlalchemy", "greenlet"), {"sqlalchemy", "greenlet"}, ("aiosqlitepool.sqlalchemy",))
DEMO = Extra(("rich",), {"rich"}, ("aiosqlitepool.cli.demo.cli",), ("demo",))
TOP = Extra(("prometheus-client", "rich"), {"prometheus_client", "rich"}, ("aiosqlitepool.cli.top.cli",), ("top",))
EACH = {
    "opentelemetry": OPENTELEMETRY,
    "prometheus": PROMETHEUS,
    "structlog": STRUCTLOG,
    "sqlalchemy": SQLALCHEMY,
    "demo": DEMO,
    "top": TOP,
}
ALL = Extra(
    tuple(name for extra in EACH.values() for name in extra.brings),
    {name for extra in EACH.values() for name in extra.libraries},
    tuple(name for extra in EACH.values() for name in extra.modules),
    ("demo", "top"),
)
EXTRAS = {**EACH, "all": ALL}

IMPORTABLE = """
import importlib.util
print(*sorted(name for name in {names!r} if importlib.util.find_spec(name)))
"""
# Everything but what needs an extra; the subscribers' package itself needs none.
IMPORT_CORE = """
import importlib, pkgutil, aiosqlitepool
optional = tuple(f"aiosqlitepool.{name}" for name in ("subscribers.", "sqlalchemy", "cli.demo.", "cli.top."))
for module in pkgutil.walk_packages(aiosqlitepool.__path__, "aiosqlitepool."):
    if not module.name.startswith(optional):
        importlib.import_module(module.name)
print(aiosqlitepool.__file__)
"""


def quick_start() -> tuple[str, str]:
    """The program, and what it prints."""
    found = re.search(r"## Quick start.*?```python\n(.*?)```\n\n```text\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    return found[1], found[2]


def test_the_core_brings_aiosqlite_and_nothing_else(installed: Installed, tmp_path: Path) -> None:
    core = installed("")
    assert core.names() == {"aiosqlitepool", "aiosqlite"}
    assert core.run("-c", IMPORTABLE.format(names=LIBRARIES), where=tmp_path).split() == ["aiosqlite"]


def test_the_core_imports_without_any_extra(installed: Installed, tmp_path: Path) -> None:
    core = installed("")
    imported = core.run("-c", IMPORT_CORE, where=tmp_path).strip()
    assert Path(imported) == core.packages / "aiosqlitepool" / "__init__.py"


def test_the_quick_start_runs_in_an_empty_directory(installed: Installed, tmp_path: Path) -> None:
    program, printed = quick_start()
    assert installed("").run("-c", program, where=tmp_path) == printed
    assert (tmp_path / "app.db").exists()


def test_the_command_line_helps_without_any_extra(installed: Installed, tmp_path: Path) -> None:
    assert "COMMAND" in installed("").run("-m", "aiosqlitepool", "--help", where=tmp_path)


def test_no_extra_is_left_untested(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    assert set(metadata.get_all("Provides-Extra", [])) == set(EXTRAS)


@pytest.mark.parametrize("name", EXTRAS)
def test_an_extra_brings_what_it_says_and_nothing_else(name: str, installed: Installed, tmp_path: Path) -> None:
    extra, environment = EXTRAS[name], installed(name)
    assert environment.names() == environment.needed_by(*extra.brings) | {"aiosqlitepool", "aiosqlite"}
    importable = set(environment.run("-c", IMPORTABLE.format(names=LIBRARIES), where=tmp_path).split())
    assert importable == extra.libraries | {"aiosqlite"}


@pytest.mark.parametrize("name", EXTRAS)
def test_with_its_extra_alone_a_thing_works(name: str, installed: Installed, tmp_path: Path) -> None:
    extra, environment = EXTRAS[name], installed(name)
    for module in extra.modules:
        environment.run("-c", f"import {module}", where=tmp_path)
    for command in extra.commands:
        assert "usage:" in environment.run("-m", "aiosqlitepool", command, "--help", where=tmp_path)
