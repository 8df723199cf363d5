from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from pathlib import Path

import anyio
import pytest

from aiosqlitepool.driver import shielded

from ..support.children import run_program
from ..support.scopes import LONG_ENOUGH, at_rest, cancelled_scope
from ..support.stub import settle


async def test_a_cancelled_scope_neither_cancels_what_is_waited_for_nor_keeps_the_loop_busy() -> None:
    ended: list[str] = []
    with at_rest(), cancelled_scope() as scope:
        ended.append(await shielded(asyncio.sleep(LONG_ENOUGH, "ended")))
        await asyncio.sleep(0)
        ended.append("went on")
    assert ended == ["ended"]
    assert scope.cancelled_caught


async def test_a_scope_that_is_cancelled_during_the_wait_does_not_end_it_either() -> None:
    with at_rest(), anyio.move_on_after(0.01) as scope:
        assert await shielded(asyncio.sleep(LONG_ENOUGH, "ended")) == "ended"
    assert scope.cancel_called


async def test_a_task_is_as_often_cancelled_after_the_scope_as_before_it() -> None:
    task = asyncio.current_task()
    assert task is not None
    with cancelled_scope():
        await shielded(asyncio.sleep(0.01))
        await asyncio.sleep(0)
    assert task.cancelling() == 0


async def test_a_cancellation_by_asyncio_is_raised_at_once() -> None:
    waiting = asyncio.create_task(shielded(asyncio.Event().wait()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await shielded(asyncio.Event().wait())


async def test_what_the_wait_raises_is_raised() -> None:
    async def fail() -> None:
        raise KeyError("k")

    with pytest.raises(KeyError, match="k"):
        await shielded(fail())


async def test_a_program_without_anyio_waits_as_it_always_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "anyio")
    assert await shielded(asyncio.sleep(0, "ended")) == "ended"


def test_a_program_that_imports_anyio_and_uses_no_scope_does_not_load_its_backend(tmp_path: Path) -> None:
    program = """
        import asyncio, sys, anyio
        from aiosqlitepool.driver import shielded
        asyncio.run(shielded(asyncio.sleep(0)))
        assert "anyio._backends._asyncio" not in sys.modules
        async def main():
            with anyio.CancelScope():
                assert "anyio._backends._asyncio" in sys.modules
        asyncio.run(main())
    """
    assert run_program(program, tmp_path).code == 0


async def test_a_coroutine_that_no_task_runs_waits_too() -> None:
    with cancelled_scope():
        pass  # or the backend may not be loaded
    done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = shielded(done)
    asyncio.get_running_loop().call_soon(waiting.send, None)
    await settle()
    done.set_result("ended")
    with pytest.raises(StopIteration, match="ended"):
        waiting.send(None)


def test_a_coroutine_that_is_thrown_away_with_its_loop_ends_in_silence() -> None:
    async def begin() -> None:
        with cancelled_scope():
            pass
        kept.append(asyncio.create_task(shielded(asyncio.Event().wait())))
        await settle()

    kept: list[asyncio.Task[bool]] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coroutine = kept[0].get_coro()
        assert coroutine is not None
        coroutine.close()
        kept[0]._log_destroy_pending = False  # type: ignore[attr-defined]
        kept.clear()
        gc.collect()
