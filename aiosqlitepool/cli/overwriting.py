"""Write many files at once, and keep a copy of each file that is overwritten."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

__all__ = ["FilesExistError", "write"]


class FilesExistError(Exception):
    """Files at the target exist and differ. Nothing was written. `paths` names these files."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(f"{len(paths)} files exist and differ: {', '.join(map(str, paths))}")
        self.paths: tuple[Path, ...] = tuple(paths)


def write(texts: Mapping[Path, str], *, force: bool) -> dict[Path, Path]:
    """Write each text to its path. Return the files that were overwritten, each with the copy of what it held.

    A copy is beside its file and is named like it, with `.bak`, `.bak2` and so on: no copy is ever overwritten.

    Raises `FilesExistError` if files differ and `force` is false, and any `OSError`. Nothing is written before all
    copies are.
    """
    changed = {path: text for path, text in texts.items() if not _holds(path, text)}
    existing = sorted(path for path in changed if path.exists() or path.is_symlink())
    if existing and not force:
        raise FilesExistError(existing)
    copies = {path: _copied(path) for path in existing if path.exists()}
    for path, text in changed.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8"))
    return copies


def _copied(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.bak{number if number > 1 else ''}") for number in count(1))
    copy = next(name for name in names if not (name.exists() or name.is_symlink()))
    shutil.copy2(path, copy)
    return copy


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode("utf-8")
