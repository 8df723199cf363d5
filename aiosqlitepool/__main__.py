"""The command line, `python -m aiosqlitepool COMMAND`. Imports only the command that runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from . import __version__

__all__ = ["main"]


def _demo(arguments: Sequence[str]) -> int:
    from .cli.demo.cli import main

    return main(arguments)


def _top(arguments: Sequence[str]) -> int:
    from .cli.top.cli import main

    return main(arguments)


def _export(arguments: Sequence[str]) -> int:
    from .cli.export import main

    return main(arguments)


# Each command parses the arguments that follow its name, and returns the exit code.
_COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "demo": (_demo, "build a SQLite database and compare its use without and with a pool"),
    "top": (_top, "show a program's pools, holders and statements, from its /metrics endpoint or its debug page"),
    "export": (_export, "write the Prometheus rules, alerts, runbook and Grafana dashboards of the package"),
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
    run, _ = _COMMANDS[chosen.command]
    return run(rest)


if __name__ == "__main__":
    sys.exit(main())
