from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aiosqlitepool.cli.export import export

Exported = Callable[[str], Path]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The folder to which a format was written."""

    def write(name: str) -> Path:
        folder = tmp_path_factory.mktemp("exported") / name
        export(folder, format=name)
        return folder

    return write
