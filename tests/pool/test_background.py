from __future__ import annotations

import asyncio

import pytest

from aiosqlitepool.pool.background import BackgroundTasks


async def nothing() -> None:
    """Work that is never run."""


def test_without_a_running_loop_no_task_is_spawned_and_its_coroutine_is_closed() -> None:
    work, ended = nothing(), list[asyncio.Task[None]]()
    with pytest.raises(RuntimeError, match="no running event loop"):
        BackgroundTasks("app.db").spawn(work, name="work", then=ended.append)
    assert work.cr_frame is None
    assert ended == []
