"""Turso's own sync server, as its npm package brings it: a real other end for replicas."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.stack_local.programs import free_port

__all__ = ["sync_server", "tursodb"]

_READY_WITHIN = 60.0


def tursodb() -> str:
    """The program. Not there, the test is left out, unless this is CI, where it must not be."""
    installed = Path(sys.prefix, "npm", "node_modules", "@tursodatabase").glob("cli-*/tursodb")
    found = shutil.which("tursodb") or next(map(str, installed), None)
    if found is None:
        leave_out = pytest.fail if os.environ.get("CI") else pytest.skip
        leave_out("tursodb is not installed: npm install --no-save --prefix .venv/npm turso@0.6")
    return found


@contextmanager
def sync_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run it on loopback until the block ends; gives its address. Its database stays in the folder."""
    program, port = tursodb(), free_port() if port is None else port
    with (folder / "server.log").open("ab") as log:
        command = [program, str(folder / "server.db"), "--sync-server", f"127.0.0.1:{port}"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait_until_ready(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server was not ready in time")
