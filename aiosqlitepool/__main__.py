"""The command line: `python -m aiosqlitepool <command>`. Each command is imported only when it is asked for."""

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


# A command takes the arguments that follow its name, parses them itself, and returns the exit code.
_COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "demo": (_demo, "build a real SQLite database and compare its use without and with a pool"),
    "top": (_top, "show what the pools of a program are doing, from its /metrics endpoint"),
    "export": (_export, "write the rules, alerts, runbook and boards that come with the package"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (by default this process's arguments) names, and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m aiosqlitepool",
        description="A fast asyncio connection pool for SQLite.",
        epilog="Each command explains its own arguments: python -m aiosqlitepool COMMAND --help",
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
