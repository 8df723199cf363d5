"""One contender's process: reads tasks as lines of JSON, answers each with one, stays warm in between.

    python -P worker.py CONTENDER LOOP

The repository itself must not become importable by this, or every contender would import the pool of the working tree
in place of its own library. So `benchmarks` is loaded from its folder, and the folder's parent stays off the path.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import platform
import sqlite3
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).parents[1]


def load_benchmarks() -> None:
    """Make `import benchmarks` work, and nothing beside it."""
    spec = importlib.util.spec_from_file_location("benchmarks", ROOT / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["benchmarks"] = package
    spec.loader.exec_module(package)


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The event loop called `asyncio` or `uvloop`."""
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return asyncio.new_event_loop


def introduce() -> dict[str, Any]:
    """What this process runs on."""
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {each.name: each.version for each in distributions() if each.name not in ("pip", "setuptools")},
    }


def answer(line: str, contender: Callable[[], Any], imported_in: float, loop: str) -> dict[str, Any]:
    """Measure what one line asks for; whatever goes wrong becomes the answer."""
    from benchmarks.inside.cores import pin
    from benchmarks.inside.load import quantiles
    from benchmarks.inside.task import Task, UnsuitableError

    task = Task(**{**json.loads(line), "import_seconds": imported_in})
    workload = importlib.import_module(f"benchmarks.workloads.{task.workload}").workload
    pin(task.regime)
    try:
        with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
            measured = runner.run(workload.measure(contender(), workload.cases[task.case], task))
    except UnsuitableError as reason:
        return {"unsuitable": str(reason)}
    except Exception as error:
        while isinstance(error, ExceptionGroup):  # of tasks: the first says why, and the report shows its last line
            error = error.exceptions[0]
        return {"error": "".join(traceback.format_exception(error, limit=-4))}
    return {"figures": measured.figures, "quantiles": quantiles(measured.latencies)}


def main(contender_name: str, loop: str) -> None:
    # What a library prints must not get between the answers.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    load_benchmarks()
    importlib.import_module("benchmarks.contenders")
    began = perf_counter()
    contender = importlib.import_module(f"benchmarks.contenders.{contender_name}").contender
    imported_in = perf_counter() - began
    print(json.dumps(introduce()), file=out)
    for line in sys.stdin:
        print(json.dumps(answer(line, contender, imported_in, loop)), file=out)
    # A contender that left a thread behind must not hang here for ever.
    out.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
