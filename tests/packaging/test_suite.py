"""The sdist's tests on the wheel's package: what would be published, tested by what is published with it."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from .environment import Environment

# What a wheel could spoil: the public face, the driver's hold, every subscriber, files beside the code. Storms,
# simulations and servers say nothing about packaging, and `make test` runs them.
TESTS = (
    "cli/formats",
    "cli/top",
    "debug/test_app.py",
    "debug/test_mounts.py",
    "driver",
    "pool/test_acquire.py",
    "pool/test_close.py",
    "pool/test_exits.py",
    "pool/test_pool.py",
    "pool/test_release.py",
    "sqlalchemy/test_engine.py",
    "subscribers",
    "test_compatibility.py",
    "test_events.py",
    "test_readme.py",
    "test_testing.py",
    "test_typing.py",
)


@pytest.mark.timeout(600)
def test_the_tests_of_the_sdist_pass_on_the_wheel(
    wheel: Path, sdist: Path, tmp_path: Path, installed: Callable[[str], Environment]
) -> None:
    environment = installed("all")
    # The tools come from where these tests run; a .pth file adds them last, so the package is the wheel's.
    (environment.packages / "tools.pth").write_text(sysconfig.get_path("purelib") + "\n")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    (source / "aiosqlitepool").rename(tmp_path / "not-to-be-imported")
    where = subprocess.run(
        [environment.python, "-c", "import aiosqlitepool; print(aiosqlitepool.__file__)"],
        cwd=source, check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert Path(where.stdout.strip()) == environment.packages / "aiosqlitepool" / "__init__.py"
    tests = [f"tests/{each}" for each in TESTS]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("DIST", "PYTEST_X", "COV"))}
    ran = subprocess.run([environment.python, "-m", "pytest", *tests], cwd=source, env=plain, timeout=580, check=False)
    assert ran.returncode == 0
