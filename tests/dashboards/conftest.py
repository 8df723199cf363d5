from __future__ import annotations

import os

import pytest

from .servers import installed


@pytest.fixture(scope="session")
def real_prometheus() -> None:
    """Debian's package `prometheus`; where it is missing, tests are skipped, but never in CI."""
    if installed():
        return
    if os.environ.get("CI"):
        pytest.fail("there is no prometheus here, and in CI there has to be one")
    pytest.skip("there is no prometheus here: apt-get install prometheus")
