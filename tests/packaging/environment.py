"""A fresh virtual environment, and what was installed into it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
# Nothing of the environment that the tests run in may leak into the one that they look at.
ISOLATED = ["-I", "-W", "error"]


@dataclass(frozen=True)
class Environment:
    """A virtual environment without pip, so that only what was asked for is in it."""

    directory: Path

    @classmethod
    def of(cls, requirement: str, directory: Path) -> Environment:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True, timeout=120)
        environment = cls(directory)
        install = [*PIP, "--python", str(environment.python), "install", requirement]
        subprocess.run(install, check=True, timeout=600)
        return environment

    @property
    def python(self) -> Path:
        return self.directory / "bin" / "python"

    @property
    def packages(self) -> Path:
        return Path(sysconfig.get_path("purelib", "venv", {"base": str(self.directory)}))

    def run(self, *arguments: str, where: Path, timeout: float = 60) -> str:
        """Run its Python isolated, in `where`; returns what it printed, and fails if it did."""
        command = [str(self.python), *ISOLATED, *arguments]
        ran = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=timeout, check=False)
        assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout + ran.stderr
        return ran.stdout

    def names(self) -> set[str]:
        return set(self._found())

    def needed_by(self, *requirements: str) -> set[str]:
        """These distributions, and everything that they in turn require here."""
        found, wanted, needed = self._found(), [Requirement(each) for each in requirements], set[str]()
        while wanted:
            name = canonicalize_name(wanted.pop().name)
            if name not in needed:
                needed.add(name)
                required = [Requirement(each) for each in found[name].requires or ()]
                wanted += [each for each in required if each.marker is None or each.marker.evaluate({"extra": ""})]
        return needed

    def _found(self) -> dict[str, Distribution]:
        return {canonicalize_name(each.name): each for each in distributions(path=[str(self.packages)])}
