"""Virtual environments, made when first needed, by pip and by name: contenders that need the same share one."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .catalogue import ROOT, ContenderFile, Interpreter

__all__ = ["CACHE", "EnvironmentFailedError", "environment"]

CACHE = ROOT / ".cache"
"""Where environments and data sets are kept; not in the repository."""

_VERSIONS = ROOT / "versions.txt"
_SECONDS = 600


class EnvironmentFailedError(Exception):
    """An environment could not be made; the message ends with what pip said."""


def environment(contender: ContenderFile, python: Interpreter) -> Path:
    """The interpreter of an environment that holds exactly what the contender and the pins say.

    Raises `EnvironmentFailedError`.
    """
    folder = CACHE / "environments" / f"{_name(contender)}-{python.version}"
    executable, stamp = folder / "bin" / "python", folder / "made-from.txt"
    recipe = _recipe(contender, python)
    if not (stamp.exists() and stamp.read_text(encoding="utf-8") == recipe):
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Without a pip of its own, which would take longer than all the rest: ours installs into it.
        _run([python.executable, "-m", "venv", "--without-pip", folder])
        pip = [sys.executable, "-m", "pip", "--python", executable, "--disable-pip-version-check", "--quiet"]
        _run([*pip, "install", "--constraint", _VERSIONS, *_requirements(contender)])
        stamp.write_text(recipe, encoding="utf-8")
    return executable


def _name(contender: ContenderFile) -> str:
    """What an environment holds, fit for the name of a folder."""
    tree = () if contender.tree is None else ("tree", *contender.tree)
    return re.sub(r"[^\w.]+", "-", " ".join((*contender.requirements, *tree)))


def _requirements(contender: ContenderFile) -> list[str]:
    if contender.tree is None:
        return list(contender.requirements)
    extras = f"[{','.join(contender.tree)}]" if contender.tree else ""
    return [*contender.requirements, "--editable", f"{ROOT.parent}{extras}"]


def _recipe(contender: ContenderFile, python: Interpreter) -> str:
    """Changes whenever the environment must be made anew."""
    tree = (ROOT.parent / "pyproject.toml").read_bytes() if contender.tree is not None else b""
    pins = hashlib.sha256(_VERSIONS.read_bytes() + tree).hexdigest()
    return "\n".join((str(python.executable), pins, *_requirements(contender)))


def _run(command: Sequence[object]) -> None:
    try:
        subprocess.run(
            [str(word) for word in command], check=True, capture_output=True, text=True, timeout=_SECONDS, cwd=ROOT
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFailedError(f"{command[1:3]} took longer than {_SECONDS} s") from error
    except subprocess.CalledProcessError as error:
        raise EnvironmentFailedError(error.stderr.strip()[-2000:] or f"exit code {error.returncode}") from error
