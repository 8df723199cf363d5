"""Names: no two pools that are alive at the same time have one name."""

from __future__ import annotations

import gc
import logging
from pathlib import Path
from typing import Any

import pytest

from aiosqlitepool import SQLiteConnectionPool, SQLiteDatabase
from aiosqlitepool.pool import registry

from ..support.children import in_a_forked_child
from ..support.pools import pool_of
from ..support.stub import StubDriver


def pool(name: str | None = "app.db", **settings: Any) -> SQLiteConnectionPool[Any]:
    return SQLiteConnectionPool(StubDriver(), name=name, **settings)


def test_a_second_pool_of_a_name_gets_a_number_and_a_warning_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "aiosqlitepool"):
        pools = [pool() for _ in range(3)]
    assert [each.name for each in pools] == ["app.db", "app.db#2", "app.db#3"]
    assert [record.args for record in caplog.records] == [("app.db", "app.db#2"), ("app.db", "app.db#3")]
    assert [each.stats().pool for each in pools] == [each.name for each in pools]


async def test_the_name_of_a_closed_pool_is_free(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        async with pool() as one:
            assert one.name == "app.db"
    never_opened = pool()
    await never_opened.close()
    assert pool().name == "app.db"
    assert not caplog.records


async def test_closing_a_pool_again_does_not_free_the_name_that_another_one_has_now() -> None:
    first = pool()
    await first.close()
    second = pool()
    await first.close()
    assert pool().name == "app.db#2"
    assert second.name == "app.db"


def test_the_name_of_a_pool_that_is_collected_is_free() -> None:
    forgotten = pool()
    del forgotten
    gc.collect()
    assert pool().name == "app.db"


def test_the_name_of_a_pool_that_could_not_be_made_is_free() -> None:
    with pytest.raises(ValueError, match="pool_size"):
        pool(pool_size=0)
    with pytest.raises(TypeError, match="subscriber"):
        pool(subscribers=[3])
    assert pool().name == "app.db"


def test_pools_without_a_name_have_numbers_of_their_own() -> None:
    first, second = pool(None), pool(None)
    assert first.name != second.name
    assert "#" not in first.name + second.name


def test_both_pools_of_a_database_get_the_same_number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reads = pool("app.db/read")
    databases = [SQLiteDatabase(tmp_path / directory / "app.db") for directory in ("a", "b")]
    assert [each.name for each in databases] == ["app.db#2", "app.db#3"]
    assert [each.writer.name for each in databases] == ["app.db#2/write", "app.db#3/write"]
    assert [each.readers.name for each in databases] == ["app.db#2/read", "app.db#3/read"]
    assert len(caplog.records) == 2
    assert reads.name == "app.db/read"


def test_a_name_that_another_thread_takes_in_between_is_not_taken_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    first, free_name = pool(), registry.free_name
    answers = iter(["app.db"])
    monkeypatch.setattr(registry, "free_name", lambda name: next(answers, None) or free_name(name))
    assert pool().name == "app.db#2"
    assert first.name == "app.db"


# Other tests may have left a thread.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_forked_child_has_the_names_of_the_pools_that_it_cannot_use() -> None:
    async with pool_of(StubDriver(), name="app.db"):
        assert in_a_forked_child(lambda: 0 if pool().name == "app.db" else 1) == 0
        assert pool().name == "app.db#2"
