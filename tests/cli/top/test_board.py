from __future__ import annotations

import pytest

from aiosqlitepool.cli.top.board import _rate


@pytest.mark.parametrize(
    ("rate", "shown"), [(0.0, "0/s"), (0.01, "<0.1/s"), (0.05, "0.1/s"), (9.94, "9.9/s"), (12345.6, "12,346/s")]
)
def test_a_rate_is_as_exact_as_one_would_read_it(rate: float, shown: str) -> None:
    assert _rate(rate) == shown
