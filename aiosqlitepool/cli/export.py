"""The SRE pack out of the installed package: `python -m aiosqlitepool export DIR`, or `export()`.

Copies Prometheus rules, alerts, Alertmanager's route, the runbook and the Grafana boards, with what the caller chose
put in: where links lead, and how long everything takes. Knows nothing of pools, and needs no YAML library: what it
changes are durations and the beginnings of links, so that comments and layout stay.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

__all__ = ["FilesExistError", "export", "main", "scale", "scaled"]

_PROGRAM = "python -m aiosqlitepool export"

# How the links of an alert begin as they are shipped.
_RUNBOOK, _GRAFANA = "runbook_url: runbook.md", "dashboard_url: /d/"

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = r"(?:\d+(?:ms|[smhdw]))+"
# What stands before one: a key whose whole value it is, or the brackets, the resolution or the offset of a selector.
_BEFORE = rf"^\s*(?:- )?\w+:\s+(?={_DURATION}\s*(?:#.*)?$)|\[(?={_DURATION}[\]:])|(?<=\w):(?={_DURATION}\])|\boffset\s+"
_DURATIONS = re.compile(rf"({_BEFORE})({_DURATION})", re.MULTILINE)


class FilesExistError(Exception):
    """Files that would be written exist already and are different; nothing was written. `paths` names them."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(f"{len(paths)} files exist already and are different: {', '.join(map(str, paths))}")
        self.paths: tuple[Path, ...] = tuple(paths)


def export(
    directory: Path,
    *,
    force: bool = False,
    time_scale: float = 1.0,
    runbook_url: str | None = None,
    grafana_url: str | None = None,
) -> tuple[Path, ...]:
    """Write the pack below `directory`, which is made if need be; returns the files, also those that were there.

    Args:
        directory: gets `metrics/` for Prometheus and Alertmanager, and `dashboards/` for Grafana.
        force: overwrite files that are different.
        time_scale: what every duration is multiplied by: intervals, windows of rates, how long a condition must hold
            before it is an alert. Thresholds stay. For trying alerts out: with 0.05, five minutes are fifteen seconds.
        runbook_url: where `runbook.md` is published; alerts link to its headings.
        grafana_url: where Grafana is; alerts link to its boards.

    Raises `FilesExistError` without `force`, `ValueError` for a scale that is not positive, `OSError` as it comes.
    """
    if not 0 < time_scale < float("inf"):
        raise ValueError(f"time_scale must be a positive number, not {time_scale!r}")
    texts = {
        directory / name: _rendered(name, text, time_scale, runbook_url, grafana_url)
        for name, text in _pack()
        # Tests of rules tell of rules as they are.
        if time_scale == 1 or not name.startswith("metrics/tests/")
    }
    changed = {path: text for path, text in texts.items() if not _holds(path, text)}
    existing = sorted(path for path in changed if path.exists() or path.is_symlink())
    if existing and not force:
        raise FilesExistError(existing)
    for path, text in changed.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8"))
    return tuple(sorted(texts))


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode("utf-8")


def scaled(text: str, factor: float) -> str:
    """Multiply every duration in the text of a Prometheus or Alertmanager file by a factor, to whole milliseconds."""
    return _DURATIONS.sub(lambda found: f"{found[1]}{_scaled(found[2], factor)}", text)


def _scaled(duration: str, factor: float) -> str:
    parts = re.findall(r"(\d+)(ms|[smhdw])", duration)
    milliseconds = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if not milliseconds:
        return duration
    milliseconds = max(1, round(milliseconds * factor))
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def _rendered(name: str, text: str, time_scale: float, runbook_url: str | None, grafana_url: str | None) -> str:
    if not name.startswith("metrics/") or not name.endswith(".yml"):
        return text
    if runbook_url is not None:
        text = text.replace(_RUNBOOK, f"runbook_url: {runbook_url}")
    if grafana_url is not None:
        text = text.replace(_GRAFANA, f"dashboard_url: {grafana_url.rstrip('/')}/d/")
    return text if time_scale == 1 else scaled(text, time_scale)


# -- what there is


def _pack() -> Iterator[tuple[str, str]]:
    """Every file of the pack: its path below the directory, and its text."""
    package = files("aiosqlitepool")
    # Beside the package in a checkout, inside it if it was installed.
    root = _root(Path(__file__).parent.parent.parent, package / "sre")
    for path, file in _files_below(root / "metrics", "metrics"):
        yield path, file.read_text("utf-8")
    for path, file in _files_below(root / "dashboards", "dashboards"):
        if re.fullmatch(r"dashboards/[^/]+\.json", path):
            yield path, file.read_text("utf-8")


def _root(*places: Traversable) -> Traversable:
    """The first of these places that has the pack."""
    for root in places:
        if (root / "metrics" / "rules.yml").is_file():
            return root
    raise FileNotFoundError(f"the package was installed without its rules and boards: {places[-1]} has none")


def _files_below(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _files_below(entry, f"{path}/{entry.name}")
        else:
            yield f"{path}/{entry.name}", entry


# -- the command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 if files could not be written, 2 for a wrong call."""
    options = _parser().parse_args(argv)
    try:
        written = export(
            options.directory,
            force=options.force,
            time_scale=options.time_scale,
            runbook_url=options.runbook_url,
            grafana_url=options.grafana_url,
        )
    except FilesExistError as error:
        for path in error.paths:
            print(f"{_PROGRAM}: exists already and is different: {path}", file=sys.stderr)
        print(f"{_PROGRAM}: nothing was written; --force overwrites", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{_PROGRAM}: error: {error}", file=sys.stderr)
        return 1
    for path in written:
        print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Write Prometheus rules and alerts, Alertmanager's route, the runbook and the Grafana boards.",
        epilog="Nothing is overwritten without --force. Where to go from there is said in the README.",
    )
    add = parser.add_argument
    add("directory", type=Path, metavar="DIR", help="gets metrics/ and dashboards/")
    add("--force", action="store_true", help="overwrite files that are different")
    add("--runbook-url", type=_page, metavar="URL", help="where runbook.md is published, for links in alerts")
    add("--grafana-url", type=_site, metavar="URL", help="where Grafana is, for links in alerts")
    add(
        "--time-scale",
        type=scale,
        default=1.0,
        metavar="F",
        help="multiply every interval, window and 'for' by this; 0.05 to try alerts out (default: 1)",
    )
    return parser


def _url(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s\"'{}]+", text):
        raise argparse.ArgumentTypeError(f"must begin with http:// or https:// and have no spaces, not {text!r}")
    return text


def _page(text: str) -> str:
    if "#" in text:
        raise argparse.ArgumentTypeError(f"must have no #, which each alert adds with its heading, not {text!r}")
    return _url(text)


def _site(text: str) -> str:
    if "?" in text or "#" in text:
        raise argparse.ArgumentTypeError(f"must end before any ? or #, for the path of a board follows, not {text!r}")
    return _url(text)


def scale(text: str) -> float:
    """The value of `--time-scale`, for argparse."""
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, not {text!r}")
    return factor
