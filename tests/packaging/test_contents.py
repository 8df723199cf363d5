"""What is in the wheel and in the sdist."""

from __future__ import annotations

import re
import subprocess
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

from aiosqlitepool import __version__

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked(under: str = ".") -> set[str]:
    """What the repository holds, as paths from its root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", under], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    return set(listed.stdout.split("\0")) - {""}


@pytest.fixture(scope="module")
def in_wheel(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_the_whole_package_and_what_it_is_given_and_nothing_else(in_wheel: set[str]) -> None:
    given = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"].get("force-include", {})
    moved = {file.replace(source, target, 1) for source, target in given.items() for file in tracked(source)}
    assert in_wheel == tracked("aiosqlitepool") | moved


@pytest.mark.parametrize("file", ["py.typed", "debug/page/index.html", "debug/page/page.js", "debug/page/page.css"])
def test_the_wheel_holds_what_is_no_python(in_wheel: set[str], file: str) -> None:
    assert f"aiosqlitepool/{file}" in in_wheel


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    assert (metadata["Name"], metadata["Version"]) == ("aiosqlitepool", __version__)
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    needed = [each for each in metadata.get_all("Requires-Dist", []) if "extra ==" not in each]
    assert needed == ["aiosqlite>=0.20"]


def test_the_package_index_shows_no_link_that_is_relative(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
        readme = archive.read(name).decode().partition("\n\n")[2]
    links = re.findall(r'\]\(([^)\s]+)|(?:src|srcset|href)="([^"]+)', readme)
    repository = PYPROJECT["project"]["urls"]["Repository"]
    assert sum(link.startswith(f"{repository}/blob/main/") for link, _ in links) > 20
    assert all(link.startswith("https://") for pair in links for link in pair if link)


def test_the_sdist_holds_the_repository(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert names == tracked() | {"PKG-INFO"}
