"""Debian's Prometheus and Alertmanager: whether they are here, and what they answer."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import pytest

__all__ = ["ask", "has_number", "installed", "queried", "tool", "wait_for"]

R = TypeVar("R")
INSTALL = "apt-get install --no-install-recommends prometheus prometheus-alertmanager"


def installed(*programs: str) -> None:
    """Skip the test where these programs are missing; fail it in CI, which must not pass without them."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        reason = f"not installed: {', '.join(missing)} ({INSTALL})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def tool(*command: str | Path, stdin: str | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool or amtool. The deadline is a little less than that of a test."""
    installed(str(command[0]))
    return subprocess.run(command, input=stdin, cwd=cwd, capture_output=True, text=True, timeout=280, check=False)


def ask(url: str, **parameters: str | float) -> Any:
    """What an HTTP API answers, decoded."""
    with urllib.request.urlopen(f"{url}?{urlencode(parameters)}", timeout=30) as answer:
        return json.load(answer)


def queried(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """The result of an instant query: series, each with `metric` and `value`."""
    try:
        answer = ask(f"{prometheus}/api/v1/query", query=expression)
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from None
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def has_number(result: Sequence[dict[str, Any]]) -> bool:
    """Whether a query found something that is not NaN."""
    return any(not math.isnan(float(series["value"][1])) for series in result)


def wait_for(what: str, look: Callable[[], R], *, within: float) -> R:
    """Look again and again until there is something to see; an error that says what there was not."""
    deadline = time.monotonic() + within
    while True:
        if seen := look():
            return seen
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {what}"
        time.sleep(0.25)
