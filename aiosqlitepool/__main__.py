"""The command line, `python -m aiosqlitepool COMMAND`. Imports only the command that runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from . import __version__

__all__ = ["main"]


# Each has a function `main`, which parses the arguments that follow the name of the command, and returns the exit code.
_COMMANDS = {
    "demo": (".cli.demo.cli", "build a SQLite database and compare its use without and with a pool"),
    "top": (".cli.top.cli", "show a program's pools, holders and statements, from its /metrics or its debug page"),
    "export": (".cli.export", "write the Prometheus rules, alerts, runbook and Grafana dashboards of the package"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names, by default `sys.argv[1:]`, and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m aiosqlitepool",
        description="A fast asyncio connection pool for SQLite.",
        epilog="For the arguments of a command: python -m aiosqlitepool COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"aiosqlitepool {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, summary) in _COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    chosen, rest = parser.parse_known_args(argv)
    module, _ = _COMMANDS[chosen.command]
    code: int = import_module(module, __package__).main(rest)
    return code


if __name__ == "__main__":
    sys.exit(main())
