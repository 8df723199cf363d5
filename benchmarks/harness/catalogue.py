"""Which contenders, workloads and Pythons there are: found by looking, listed nowhere."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ..workloads import Workload

__all__ = ["ROOT", "ContenderFile", "Interpreter", "contenders", "pythons", "workloads"]

ROOT = Path(__file__).parents[1]

_METADATA = re.compile(r"^# /// script\n((?:^#(?: .*)?\n)+?)^# ///$", re.MULTILINE)
_PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
# The order of the tables: the limits first, this pool and database last, all others in between.
_FIRST = ("plain_sqlite3", "floor", "open_close", "aiosqlitepool_1")
_LAST = (
    *("this_pool", "this_pool_prometheus", "this_pool_all", "this_database", "this_database_alone"),
    *("this_database_execute", "this_database_functions", "this_database_inline_read", "this_database_inline"),
)


@dataclass(frozen=True, slots=True)
class ContenderFile:
    """What a contender's file says of itself, read without importing it: its library is not installed here."""

    name: str
    title: str
    about: str
    requirements: tuple[str, ...]
    tree: tuple[str, ...] | None
    """The extras of the working tree's own package that it needs; `None` if it does without that package."""
    workloads: tuple[str, ...] | None = None
    """What it takes part in; `None` is everything."""

    @classmethod
    def read(cls, path: Path) -> ContenderFile:
        """Raises `ValueError` if the file's metadata are missing or incomplete."""
        text = path.read_text(encoding="utf-8")
        block = _METADATA.search(text)
        if block is None:
            raise ValueError(f"{path.name} has no inline script metadata (# /// script)")
        metadata = tomllib.loads("\n".join(line[2:] for line in block[1].splitlines()))
        try:
            bench = metadata["tool"]["bench"]
            title, requirements = bench["title"], tuple(metadata["dependencies"])
        except KeyError as missing:
            raise ValueError(f"{path.name}: its inline script metadata lack {missing}") from missing
        tree = tuple(bench["tree"]) if "tree" in bench else None
        only = tuple(bench["workloads"]) if "workloads" in bench else None
        return cls(path.stem, title, ast.get_docstring(ast.parse(text)) or "", requirements, tree, only)

    def takes_part(self, workload: str) -> bool:
        """Whether it is measured in this workload."""
        return self.workloads is None or workload in self.workloads


def contenders() -> dict[str, ContenderFile]:
    """Every contender by name, in the order of the tables."""
    found = {path.stem: ContenderFile.read(path) for path in _modules("contenders")}
    others = sorted(found.keys() - {*_FIRST, *_LAST})
    return {name: found[name] for name in (*_FIRST, *others, *_LAST) if name in found}


def workloads() -> dict[str, Workload]:
    """Every workload by name."""
    return {path.stem: _workload(path.stem) for path in _modules("workloads")}


def workload_text(name: str) -> str:
    """What a workload says of itself."""
    return importlib.import_module(f"benchmarks.workloads.{name}").__doc__ or ""


def _workload(name: str) -> Workload:
    workload = importlib.import_module(f"benchmarks.workloads.{name}").workload
    assert isinstance(workload, Workload), f"benchmarks/workloads/{name}.py has no workload"
    return workload


def _modules(folder: str) -> list[Path]:
    return [path for path in sorted((ROOT / folder).glob("*.py")) if not path.name.startswith("_")]


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A CPython found on this machine."""

    version: str
    executable: Path


def pythons() -> dict[str, Interpreter]:
    """Every CPython from 3.11 to 3.15 that is installed: this one, those on the path, and those of pyenv."""
    found: dict[str, Interpreter] = {}
    for candidate in _candidates():
        version = _version(candidate)
        if version in _PYTHONS and version not in found:
            found[version] = Interpreter(version, candidate)
    return dict(sorted(found.items()))


def _candidates() -> list[Path]:
    own = [Path(sys.executable)]
    on_path = [Path(path) for version in _PYTHONS if (path := shutil.which(f"python{version}"))]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    managed = [path for version in _PYTHONS for path in sorted(pyenv.glob(f"{version}.*/bin/python{version}"))]
    # A shim on the path may name a version that pyenv does not let run: those of pyenv itself come first.
    return [*own, *managed, *on_path]


def _version(executable: Path) -> str | None:
    ask = "import sys; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run(
            [executable, "-c", ask], capture_output=True, text=True, timeout=30, check=True
        ).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return answer[1] if answer[:1] == ["cpython"] else None
