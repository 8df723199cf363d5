"""A worker process, seen from the harness: sends it tasks, awaits its answers, and survives whatever it does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..inside.task import Task
from .catalogue import ROOT

__all__ = ["WorkerFailedError", "WorkerProcess"]

WORKER = ROOT / "inside" / "worker.py"
_LONGEST_LINE = 2**22


class WorkerFailedError(Exception):
    """The process died, hung, or could not start; the message says which and ends with its last words."""


class WorkerProcess:
    """One contender's process. It is started by its first task, and again by the next one after it failed."""

    def __init__(self, python: Path, contender: str, loop: str) -> None:
        self._command = (str(python), "-P", str(WORKER), contender, loop)
        self._process: asyncio.subprocess.Process | None = None
        self._stderr: Any = None
        self.about: dict[str, Any] = {}
        """What it runs on, once it has started."""

    async def measure(self, task: Task, limit: float) -> dict[str, Any]:
        """Its answer to one task, within `limit` seconds; raises `WorkerFailedError`, and can then be asked again."""
        try:
            if self._process is None:
                self.about = await self._start(limit)
            return await self._ask(json.dumps(asdict(task)), limit)
        except WorkerFailedError:
            await self.stop()
            raise

    async def _start(self, limit: float) -> dict[str, Any]:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._stderr,
            limit=_LONGEST_LINE,
            start_new_session=True,
            env={**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, "PYTHONHASHSEED": "0"},
        )
        return await self._hear(limit)

    async def _ask(self, line: str, limit: float) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it died: hearing nothing from it will say so
            self._process.stdin.write(line.encode() + b"\n")
            await self._process.stdin.drain()
        return await self._hear(limit)

    async def _hear(self, limit: float) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), limit)
        except TimeoutError:
            raise WorkerFailedError(f"no answer within {limit:g} s{self._last_words()}") from None
        if not line:
            raise WorkerFailedError(f"ended with exit code {await self._process.wait()}{self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        self._stderr.seek(0)
        words = self._stderr.read().decode(errors="replace").strip()[-1500:]
        return f":\n{words}" if words else ""

    async def stop(self) -> None:
        """End it, whatever it is doing."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()  # also closes the pipes
        self._stderr.close()
