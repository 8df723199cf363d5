"""Start the example service, its load, Prometheus and Alertmanager, print their addresses, and end them on Ctrl-C.

python -m examples.stack_local
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlencode

from aiosqlitepool.cli.export import export, scale

from .programs import ENDING, Program, ProgramEndedError, alertmanager, load, missing, prometheus, service

SUMMARY = "Run the example service under load, with Debian's Prometheus and Alertmanager, until Ctrl-C."
P99 = 'job_pool:db_client_connection_wait_time_seconds:quantile_rate5m{quantile="0.99"}'


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.stack_local", description=SUMMARY)
    parser.add_argument(
        "--time-scale", type=scale, default=1.0, metavar="F", help="as of `python -m aiosqlitepool export` (default: 1)"
    )
    options = parser.parse_args()
    if packages := missing():
        print(f"Not installed: {', '.join(packages)}. On Debian and Ubuntu:", file=sys.stderr)
        print(f"  sudo apt-get install --no-install-recommends {' '.join(packages)}", file=sys.stderr)
        return 1
    for each in ENDING:
        if signal.getsignal(each) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(each, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="aiosqlitepool-stack-") as folder, ExitStack() as programs:
            try:
                watch(start(programs, Path(folder), options.time_scale))
            finally:
                # A second Ctrl-C would leave some of the programs running.
                for each in ENDING:
                    signal.signal(each, signal.SIG_IGN)
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be what has ended
            print("\nAll ended.", flush=True)
        return 0
    except ProgramEndedError as error:
        print(error, file=sys.stderr)
        return 1


def start(programs: ExitStack, folder: Path, time_scale: float) -> list[Program]:
    """Start all programs in the order of their dependencies, and print their addresses."""
    export(folder, time_scale=time_scale)
    metrics = folder / "metrics"
    environment = {**os.environ, "DEBUG_PAGE": "yes"}  # only this machine can reach it
    app = programs.enter_context(service(folder / "service.db", folder / "service.log", environment))
    programs.enter_context(load(app, folder / "load.log"))
    manager = programs.enter_context(alertmanager(metrics / "alertmanager.yml", folder))
    for file, program in (("app.yml", app), ("alertmanager.yml", manager)):
        address = program.url.removeprefix("http://")
        (metrics / "targets" / file).write_text(f'- targets: ["{address}"]\n', "utf-8")
    server = programs.enter_context(prometheus(metrics / "prometheus.yml", folder))
    graph = urlencode({"g0.expr": P99, "g0.tab": "0", "g0.range_input": "15m"})
    print(
        f"The service    {app.url}/docs",
        f"Its metrics    {app.url}/metrics",
        f"Its pools      {app.url}/debug/pool/",
        f"P99 wait       {server.url}/graph?{graph}",
        f"Alerts         {server.url}/alerts",
        f"Alertmanager   amtool alert query --alertmanager.url={manager.url}",
        f"Logs           {folder}",
        f"The first P99 shows after about {6 * 15 * time_scale:.0f} s. Ctrl-C ends everything.",
        sep="\n",
        flush=True,
    )
    return [app, manager, server]


def watch(programs: list[Program]) -> NoReturn:
    """Return never; raise `ProgramEndedError` if one of them ends."""
    while True:
        for program in programs:
            program.check()
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
