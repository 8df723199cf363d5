"""What importing and making a subscriber needs, and what happens without it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import aiosqlitepool.subscribers
from aiosqlitepool.subscribers.opentelemetry import OpenTelemetrySubscriber
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber
from aiosqlitepool.subscribers.structlog import StructlogSubscriber

SUBSCRIBERS = Path(aiosqlitepool.subscribers.__file__).parent
LIBRARIES = {
    "prometheus": ("prometheus_client", "prometheus"),
    "opentelemetry": ("opentelemetry", "opentelemetry"),
    "opentelemetry_instrumentor": ("opentelemetry.instrumentation", "opentelemetry"),
    "structlog": ("structlog", "structlog"),
}


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("module", LIBRARIES)
def test_without_its_library_a_subscriber_says_which_extra_brings_it(module: str) -> None:
    library, extra = LIBRARIES[module]
    output = python(f"""
import sys
sys.modules[{library!r}] = None
try:
    import aiosqlitepool.subscribers.{module}
except ModuleNotFoundError as error:
    print(error)
""")
    assert f"pip install 'aiosqlitepool[{extra}]'" in output


@pytest.mark.parametrize("module", ["prometheus", "opentelemetry", "structlog"])
def test_a_subscriber_needs_no_other_ones_library(module: str) -> None:
    others = {library.split(".")[0] for library, _ in LIBRARIES.values()} - {LIBRARIES[module][0]}
    output = python(f"""
import sys
for other in {sorted(others)!r}:
    sys.modules[other] = None
import aiosqlitepool.subscribers.{module}
print("fine")
""")
    assert output == "fine\n"


def test_the_package_itself_imports_no_subscriber_and_no_library() -> None:
    libraries = ("prometheus_client", "opentelemetry", "structlog", "aiosqlitepool.subscribers")
    output = python(f"""
import sys, aiosqlitepool
print([name for name in {libraries!r} if name in sys.modules])
""")
    assert output == "[]\n"


PUBLIC = {"aiosqlitepool", "aiosqlitepool.events"}


@pytest.mark.parametrize("file", sorted(SUBSCRIBERS.glob("*.py")), ids=lambda file: file.name)
def test_a_subscriber_touches_nothing_of_the_package_that_a_stranger_could_not_import(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level <= 1
            modules, imported = [node.module or ""] if not node.level else [], [each.name for each in node.names]
        elif isinstance(node, ast.Import):
            modules, imported = [each.name for each in node.names], []
        else:
            continue
        ours = [module for module in modules if module.split(".")[0] == "aiosqlitepool"]
        theirs = [module for module in modules if module not in ours and module != "__future__"]
        assert set(ours) <= PUBLIC
        assert not [name for name in imported if name.startswith("_") and ours and name != "__version__"]
        assert not [module for module in theirs if any(part.startswith("_") for part in module.split("."))]


@pytest.mark.parametrize("subscriber", [PrometheusSubscriber, OpenTelemetrySubscriber, StructlogSubscriber])
def test_what_is_slow_is_a_setting_of_the_pool_and_not_of_a_subscriber(subscriber: Any) -> None:
    with pytest.raises(TypeError, match="slow_acquire"):
        subscriber(slow_acquire=0.05)
