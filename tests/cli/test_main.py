from __future__ import annotations

import pytest

from aiosqlitepool import __version__
from aiosqlitepool.__main__ import main


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"aiosqlitepool {__version__}\n"
