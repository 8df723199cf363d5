"""Export the SRE pack from the installed package: `python -m aiosqlitepool export DIR`, or `export()`.

The pack has Prometheus rules, alerts, an Alertmanager route, the runbook and the Grafana dashboards. The caller can set
the base URLs of the links, scale all durations, and fit queries to a fleet. All is replaced in the text, without a YAML
library, which keeps comments and layout. `formats` turns the pack into what other tools read.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from .fleet import Fleet, labels, selector
from .formats import DEFAULT, FORMATS
from .overwriting import FilesExistError, write

__all__ = ["FilesExistError", "export", "main", "scale", "scaled"]

_PROGRAM = "python -m aiosqlitepool export"

# The beginnings of the links in the shipped alerts.
_RUNBOOK, _GRAFANA = "runbook_url: runbook.md", "dashboard_url: /d/"

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = r"(?:\d+(?:ms|[smhdw]))+"
# What precedes a duration: a key whose whole value it is, or the bracket, resolution or offset of a selector.
_BEFORE = rf"^\s*(?:- )?\w+:\s+(?={_DURATION}\s*(?:#.*)?$)|\[(?={_DURATION}[\]:])|(?<=\w):(?={_DURATION}\])|\boffset\s+"
_DURATIONS = re.compile(rf"({_BEFORE})({_DURATION})", re.MULTILINE)


def export(
    directory: Path,
    *,
    format: str = DEFAULT,
    force: bool = False,
    time_scale: float = 1.0,
    runbook_url: str | None = None,
    grafana_url: str | None = None,
    keep_labels: Sequence[str] = (),
    selector: str | None = None,
    overwritten: Callable[[Path, Path], object] = lambda path, copy: None,
) -> tuple[Path, ...]:
    """Write the pack to `directory`. Return the paths of all its files, also of those that were up to date.

    Args:
        directory: where to write. Created if missing.
        format: what reads the files, a key of `FORMATS`. "prometheus" writes `metrics/` and `dashboards/`.
        force: overwrite files that differ. A copy of each is kept beside it, as `NAME.bak`.
        time_scale: the factor for every duration: intervals, rate windows and the `for` of alerts. Thresholds stay as
            they are. Use 0.05 to test alerts: 5 minutes become 15 seconds.
        runbook_url: the URL of the published `runbook.md`, for the links in alerts.
        grafana_url: the base URL of Grafana, for the links in alerts.
        keep_labels: labels to keep in every aggregation, such as `("cluster", "namespace")`, where they tell services
            of one job name from each other. Every scraped series must have them. The boards get a variable for each.
        selector: matchers such as `job="api"` that every query of scraped series gets.
        overwritten: called for each file that was overwritten, with its path and that of the copy.

    Raises `FilesExistError` if files differ and `force` is false, `ValueError` if `format` is unknown, `time_scale`
    is not positive, or `keep_labels` or `selector` invalid, and any `OSError`.
    """
    _check(format, time_scale)
    fleet = Fleet(tuple(keep_labels), selector)
    pack = {
        name: _rendered(name, fleet.applied(name, text), time_scale, runbook_url, grafana_url)
        for name, text in _pack()
        # The tests of the rules have fixed durations and series: they would fail for others.
        if (time_scale == 1 and selector is None) or not name.startswith("metrics/tests/")
    }
    texts = {directory / name: text for name, text in FORMATS[format](pack).items()}
    for path, copy in write(texts, force=force).items():
        overwritten(path, copy)
    return tuple(sorted(texts))


def _check(format: str, time_scale: float) -> None:
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    if not 0 < time_scale < float("inf"):
        raise ValueError(f"time_scale must be a positive number, not {time_scale!r}")


def scaled(text: str, factor: float) -> str:
    """Multiply each duration in a Prometheus or Alertmanager file by `factor`. Round to whole milliseconds."""
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


# -- the files of the pack


def _pack() -> Iterator[tuple[str, str]]:
    """Yield the relative path and the text of each file."""
    package = files("aiosqlitepool")
    # In a checkout the pack is beside the package, in an installation inside it.
    root = _root(Path(__file__).parent.parent.parent, package / "sre")
    for path, file in _files_below(root / "metrics", "metrics"):
        yield path, file.read_text("utf-8")
    for path, file in _files_below(root / "dashboards", "dashboards"):
        if re.fullmatch(r"dashboards/[^/]+\.json", path):
            yield path, file.read_text("utf-8")


def _root(*places: Traversable) -> Traversable:
    """Return the first of `places` that has the pack. Raises `FileNotFoundError` if none has."""
    for root in places:
        if (root / "metrics" / "rules.yml").is_file():
            return root
    raise FileNotFoundError(f"the package was installed without its rules and dashboards: {places[-1]} has none")


def _files_below(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _files_below(entry, f"{path}/{entry.name}")
        else:
            yield f"{path}/{entry.name}", entry


# -- the command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Return its exit code: 0, 1 if files could not be written, 2 for invalid arguments."""
    options = _parser().parse_args(argv)
    try:
        written = export(
            options.directory,
            format=options.format,
            force=options.force,
            time_scale=options.time_scale,
            runbook_url=options.runbook_url,
            grafana_url=options.grafana_url,
            keep_labels=options.keep_labels,
            selector=options.selector,
            overwritten=_say_overwritten,
        )
    except FilesExistError as error:
        for path in error.paths:
            print(f"{_PROGRAM}: file exists and differs: {path}", file=sys.stderr)
        print(f"{_PROGRAM}: nothing was written; use --force to overwrite and keep copies", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{_PROGRAM}: error: {error}", file=sys.stderr)
        return 1
    for path in written:
        print(path)
    return 0


def _say_overwritten(path: Path, copy: Path) -> None:
    print(f"{_PROGRAM}: overwrote a file that differed: {path}; it is kept as {copy.name}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Write the Prometheus rules and alerts, an Alertmanager route, the runbook and Grafana dashboards.",
        epilog="Files that differ are overwritten only with --force. The documentation has the next steps.",
    )
    add = parser.add_argument
    add("directory", type=Path, metavar="DIR", help="where to write; created if missing")
    add("--format", choices=FORMATS, default=DEFAULT, help="what reads the files (default: %(default)s)")
    add("--force", action="store_true", help="overwrite files that differ, and keep each as NAME.bak")
    add("--runbook-url", type=_page, metavar="URL", help="URL of the published runbook.md, for the links in alerts")
    add("--grafana-url", type=_site, metavar="URL", help="base URL of Grafana, for the links in alerts")
    add(
        "--keep-labels",
        type=labels,
        default=(),
        metavar="LABEL,...",
        help="labels to keep in every aggregation, such as cluster,namespace; every series must have them",
    )
    add("--selector", type=selector, metavar="MATCHERS", help="matchers for every query, such as 'job=\"api\"'")
    add(
        "--time-scale",
        type=scale,
        default=1.0,
        metavar="F",
        help="factor for every interval, window and 'for'; use 0.05 to test alerts (default: 1)",
    )
    return parser


def _url(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s\"'{}]+", text):
        raise argparse.ArgumentTypeError(
            f"must begin with http:// or https:// and contain no spaces, quotes or braces, not {text!r}"
        )
    return text


def _page(text: str) -> str:
    if "#" in text:
        raise argparse.ArgumentTypeError(f"must not contain #: each alert adds # and its heading, not {text!r}")
    return _url(text)


def _site(text: str) -> str:
    if "?" in text or "#" in text:
        raise argparse.ArgumentTypeError(
            f"must not contain ? or #: each alert adds the path of a dashboard, not {text!r}"
        )
    return _url(text)


def scale(text: str) -> float:
    """Parse the value of `--time-scale`. Raises `argparse.ArgumentTypeError`."""
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, not {text!r}")
    return factor
