"""How many processes a server was told to start, where that is certain. Knows no pool.

Certain are the arguments of a server that is known, and the variable that it reads. What a configuration file of
gunicorn says, or a supervisor that starts several programs, cannot be seen.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import PurePath

__all__ = ["workers"]

# Servers that have the argument, and those of them that read WEB_CONCURRENCY.
_SERVERS = frozenset({"fastapi", "granian", "gunicorn", "hypercorn", "uvicorn"})
_BY_VARIABLE = frozenset({"fastapi", "gunicorn", "uvicorn"})


def workers(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Return how many worker processes the server of this process has; 1 if that is not certain.

    `argv` is `sys.argv` if not given, which servers keep in the processes that they start.
    """
    program, *arguments = sys.argv if argv is None else argv or [""]
    path = PurePath(program)
    server = path.parent.name if path.stem == "__main__" else path.stem  # `python -m uvicorn`
    if server not in _SERVERS:
        return 1
    if server == "gunicorn":
        arguments = [*shlex.split(environ.get("GUNICORN_CMD_ARGS", "")), *arguments]
    told = re.findall(r"(?:^|\n)(?:--workers[=\n]|-w[=\n]?)(\d+)(?=\n|$)", "\n".join(arguments))
    if not told and server in _BY_VARIABLE:
        told = re.findall(r"\A\d+\Z", environ.get("WEB_CONCURRENCY", ""))
    return int(told[-1]) if told else 1
