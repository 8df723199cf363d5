"""Every command in a Markdown file is one that runs: cheap ones do, and what long ones name is looked up."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from aiosqlitepool.cli.export import export

from .support.debian import installed
from .support.documents import DOCUMENTS, ROOT, commands_in, spoken_commands_in

TOML = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = TOML["project"]
# What the examples and the tests need, which is installed here.
BESIDE = {
    re.match(r"[\w-]+", each)[0]  # type: ignore[index]
    for group in ("examples", "dev")
    for each in TOML["dependency-groups"][group]
    if isinstance(each, str)
}
# What `make TARGET ARGS=...` hands its arguments to.
BEHIND = {
    "bench": ["benchmarks"],
    "boards-real": ["tests.dashboards.real"],
    "demo": ["aiosqlitepool", "demo"],
    "pictures": ["tests.dashboards.pictures"],
    "stack-local": ["examples.stack_local"],
    "test": ["pytest"],
}


def ran(*command: str | Path, cwd: Path = ROOT) -> str:
    """What a command prints; it must succeed."""
    # Make would tell of itself in the directories of others.
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, cwd=cwd, env=plain, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def options_known(module: list[str], arguments: list[str]) -> None:
    """A module of Python that helps, and tells of every option in these arguments."""
    helped = ran(sys.executable, "-m", *module, "--help")
    assert "usage:" in helped.lower()
    known = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", helped))
    named = {each.partition("=")[0] for each in arguments if each.startswith("-")}
    assert named <= known, f"{module} knows no {named - known}"


def make(words: list[str], directory: Path) -> None:
    targets = [word for word in words if "=" not in word]
    variables = dict(word.split("=", 1) for word in words if "=" in word)
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE) for target in targets), targets
    assert all(re.search(rf"^{name} [?:]?=|\$\({name}\)", makefile, re.MULTILINE) for name in variables), variables
    ran("make", "--dry-run", *words)
    if arguments := variables.get("ARGS", "").split():
        options_known(BEHIND[targets[0]], arguments)
        assert all((ROOT / each).exists() for each in arguments if "/" in each), arguments


def python(words: list[str], directory: Path) -> None:
    if words[0] == "-m":
        package, rest = words[1], words[2:]
        commands = rest[:1] if rest and re.fullmatch(r"[a-z]+", rest[0]) else []
        options_known([package, *commands], rest[len(commands) :])
    elif words[0].startswith("examples/"):
        ran(sys.executable, *words[:1], "--help")
    elif words[0] in {"-W", "-X"}:
        ran(sys.executable, *words, "-c", "")


def export_pack(words: list[str], directory: Path) -> None:
    ran(sys.executable, "-m", "aiosqlitepool", "export", *words, cwd=directory)
    written = {path.name for path in (directory / words[0]).iterdir()}
    assert written if "--format" in words else written == {"metrics", "dashboards"}


def pip(words: list[str], directory: Path) -> None:
    """Only what the project offers, which the tests of the packaging install, or what its examples need."""
    assert words[0] == "install"
    for requirement in words[1:]:
        name, extras = re.fullmatch(r"(?:\./)?([\w-]+|\.)(?:\[([\w, -]+)\])?", requirement).groups(default="")  # type: ignore[union-attr]
        assert name in {PROJECT["name"], "."} or (name in BESIDE and not extras), requirement
        assert set(filter(None, re.split(r"[, ]+", extras))) <= set(PROJECT["optional-dependencies"]), requirement


def prometheus(words: list[str], directory: Path) -> None:
    """Every option, and the configuration it is to read, which is in the pack."""
    installed("prometheus", "promtool")
    export(directory / "pack")
    known = subprocess.run(["prometheus", "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert all(f"{option.partition('=')[0]}=" in known.stdout + known.stderr for option in words), words
    (config,) = [option.partition("=")[2] for option in words if option.startswith("--config.file=")]
    ran("promtool", "check", "config", config, cwd=directory)


def module(name: str) -> Callable[[list[str], Path], None]:
    """A program that is a module of Python too: it must know the options."""
    return lambda words, directory: options_known([name], words)


def sqlite(words: list[str], directory: Path) -> None:
    """SQL on a file; a command of SQLite's shell is one that its documentation has."""
    for word in words[1:]:
        if word.startswith("."):
            assert word == ".recover"
            return
        with closing(sqlite3.connect(directory / words[0])) as db:
            db.execute(word.replace("...", "1")).fetchall()


def apt(words: list[str], directory: Path) -> None:
    """Only what the gate installs too."""
    packages = [word for word in words[2:] if not word.startswith("-")]
    assert words[:2] == ["apt-get", "install"]
    assert all(re.search(rf"\b{package}\b", (ROOT / ".ci/run").read_text()) for package in packages), packages


# The first words of a command, and how it is tried.
KNOWN: dict[tuple[str, ...], Callable[[list[str], Path], None]] = {
    ("make",): make,
    ("python", "-m", "aiosqlitepool", "export"): export_pack,
    ("python",): python,
    (".venv/bin/python",): python,
    ("pip",): pip,
    ("prometheus",): prometheus,
    ("pytest",): module("pytest"),
    ("sqlite3",): sqlite,
    ("uvicorn",): module("uvicorn"),
    ("sudo",): apt,
}


def trial_of(words: list[str]) -> tuple[Callable[[list[str], Path], None], list[str]] | None:
    """How a command is tried, and with what; nothing if nobody knows it."""
    for first, trial in KNOWN.items():
        if tuple(words[: len(first)]) == first:
            return trial, words[len(first) :]
    return None


SHOWN = sorted({(document, *words) for document in DOCUMENTS for words in commands_in(document)})
TRIED = r"(make|pip install|python -[mWX]|(\.venv/bin/)?python examples/\S+|pytest|sqlite3|uvicorn) \S"
SPOKEN = sorted(
    {
        (document, *shlex.split(code))
        for document in DOCUMENTS
        for code in spoken_commands_in(document)
        if re.match(
            r"(make|pip install|python -[mWX]|(\.venv/bin/)?python examples/\S+|pytest|sqlite3|uvicorn) \S", code
        )
    }
)


@pytest.mark.parametrize("command", SHOWN, ids=lambda command: f"{command[0]}: {' '.join(command[1:])}")
def test_a_command_in_a_block_runs(command: tuple[Path, ...], tmp_path: Path) -> None:
    _, *words = map(str, command)
    known = trial_of(words)
    assert known, f"{command[0]} shows a command that no test knows: {' '.join(words)}"
    trial, arguments = known
    trial(arguments, tmp_path)


@pytest.mark.parametrize("command", SPOKEN, ids=lambda command: f"{command[0]}: {' '.join(command[1:])}")
def test_a_command_in_a_sentence_runs(command: tuple[Path, ...], tmp_path: Path) -> None:
    known = trial_of(list(map(str, command[1:])))
    assert known
    trial, arguments = known
    # What is in capitals stands for something of the reader's.
    trial([each for each in arguments if not each.isupper()], tmp_path)


INSTALLED = sorted(
    {
        (document, extras)
        for document in DOCUMENTS
        for code in spoken_commands_in(document)
        for extras in re.findall(r"aiosqlitepool\[([a-z, -]+)\]", code)
    }
)


@pytest.mark.parametrize(("document", "extras"), INSTALLED, ids=str)
def test_an_extra_that_is_spoken_of_exists(document: Path, extras: str) -> None:
    assert {each.strip() for each in extras.split(",")} <= set(PROJECT["optional-dependencies"]), document


def test_every_target_is_told_of_by_make_help() -> None:
    phony = set(re.findall(r"^\.PHONY: (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^  make (\S+) +\S+ \S+", ran("make", "help"), re.MULTILINE)) == phony
