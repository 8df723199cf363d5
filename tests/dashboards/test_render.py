"""Pictures of boards: what Prometheus answered is drawn, where the board has it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from dashboards.render import theme
from dashboards.render.__main__ import main
from dashboards.render.answers import Window, answers, look, overrides, threshold_colour
from dashboards.render.ask import Prometheus, Series
from dashboards.render.board import board_files, expand, panels, queries, read, variables
from dashboards.render.canvas import SHADE
from dashboards.render.page import render
from dashboards.render.units import spell

BOARDS = {path.stem: read(path) for path in board_files()}
PANELS = {panel["title"]: panel for panel in panels(BOARDS["overview"])}
VALUES = variables(rate_interval=60, interval=15, span=600)
WINDOW = Window(0.0, 600.0, 10.0, VALUES)
ROOT = Path(__file__).parents[2]


class Canned(Prometheus):
    """A Prometheus that answers every query with as many series as it is told, of one value."""

    def __init__(self, count: int, value: float = 0.5) -> None:
        super().__init__("http://nowhere.invalid")
        self.count = count
        self.value = value
        self.asked: list[str] = []

    def _series(self, expr: str, times: tuple[float, ...]) -> list[Series]:
        self.asked.append(expr)
        return [Series(self._labels(expr, turn), times, (self.value,) * len(times)) for turn in range(self.count)]

    def _labels(self, expr: str, turn: int) -> Mapping[str, str]:
        labels = dict.fromkeys(re.findall(r"\w+", expr), f"value {turn}")
        return labels | {"le": str(2.0**turn)}

    def now(self, expr: str, at: float) -> list[Series]:
        return self._series(expr, (at,))

    def over_time(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        return self._series(expr, tuple(start + step * turn for turn in range(int((end - start) / step) + 1)))

    def exemplars(self, expr: str, start: float, end: float) -> list[tuple[float, float, Mapping[str, str]]]:
        return [(start + 1, 0.2, {"trace_id": "0" * 32})]


def shade(colour: str) -> tuple[int, ...]:
    return tuple(min((part + SHADE // 2) // SHADE * SHADE, 255) for part in bytes.fromhex(colour[1:]))


@pytest.mark.parametrize("name", BOARDS)
@pytest.mark.parametrize(("count", "value"), [(0, 0.0), (1, 0.0), (3, 0.5), (3, math.nan), (2, math.inf)])
def test_a_board_is_drawn_whatever_the_answers_are(tmp_path: Path, name: str, count: int, value: float) -> None:
    picture = tmp_path / "board.png"
    render(BOARDS[name], Canned(count, value), WINDOW, {"pool": "All"}, picture)
    with Image.open(picture) as image:
        rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in BOARDS[name]["panels"])
        assert image.height > rows * 30
        assert image.getpixel((0, 0)) == shade(theme.BACKGROUND)


@pytest.mark.parametrize("name", BOARDS)
def test_every_query_of_a_panel_in_sight_is_asked_and_no_other(tmp_path: Path, name: str) -> None:
    prometheus = Canned(1)
    render(BOARDS[name], prometheus, WINDOW, {}, tmp_path / "board.png")
    in_sight = {panel["title"] for panel in BOARDS[name]["panels"] if panel["type"] != "row"}
    asked = [expand(query.expr, VALUES) for query in queries(BOARDS[name]) if query.panel in in_sight]
    assert prometheus.asked == asked


def drawn(tmp_path: Path, prometheus: Canned) -> Image.Image:
    render(BOARDS["overview"], prometheus, WINDOW, {}, tmp_path / "board.png")
    return Image.open(tmp_path / "board.png").convert("RGB")


def test_a_number_over_its_threshold_is_red_and_one_below_it_is_green(tmp_path: Path) -> None:
    def colours_of_the_first_stat(value: float) -> set[object]:
        image = drawn(tmp_path, Canned(1, value))
        corner = image.crop((0, 130, image.width // 6, 260))
        return {colour for _, colour in corner.getcolors(1 << 24) or ()}

    red, green = (shade(theme.colour(name)) for name in ("red", "green"))
    assert red in colours_of_the_first_stat(1.0)
    assert green not in colours_of_the_first_stat(1.0)
    assert green in colours_of_the_first_stat(0.1)


def test_a_series_looks_as_its_override_says() -> None:
    most = look(PANELS["Connections"], "max", 7)
    assert (most.colour, most.dashed, most.stacked, most.fill) == (theme.colour("text"), True, False, 0.0)
    assert look(PANELS["Connections"], "used", 0).stacked
    creates = look(PANELS["Creating connections"], "creates", 1)
    assert (creates.right, creates.unit) == (True, "ops")
    assert overrides(PANELS["Connections"], "nobody") == {}


def test_series_without_an_override_take_colours_in_turn() -> None:
    turns = range(len(theme.PALETTE) + 1)
    colours = [look(PANELS["Queue"], f"pool {turn}", turn).colour for turn in turns]
    assert colours == [*theme.PALETTE, theme.PALETTE[0]]


@pytest.mark.parametrize(("value", "name"), [(0.79, "green"), (0.8, "orange"), (1.2, "red")])
def test_a_threshold_is_reached_when_the_value_is_it(value: float, name: str) -> None:
    assert threshold_colour(PANELS["Fullest pool"], value) == theme.colour(name)


def test_answers_are_named_as_the_legend_says_and_in_order() -> None:
    found = list(answers(PANELS["Acquires by path"], Canned(3), WINDOW))
    assert [answer.name for answer in found] == ["value 0", "value 1", "value 2"]


def test_a_variable_without_a_value_is_an_error() -> None:
    assert expand("$a ${b} ${c:pipe}", {"a": "1", "b": "2", "c": "3"}) == "1 2 3"
    with pytest.raises(KeyError, match="unknown"):
        expand("$unknown", {})


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, "s", "0 s"),
        (0.0000005, "s", "500 ns"),
        (0.000025, "s", "25 µs"),
        (0.0125, "s", "12.5 ms"),
        (1.0, "s", "1 s"),
        (90.0, "s", "1.5 min"),
        (7200.0, "s", "2 hour"),
        (0.8, "percentunit", "80%"),
        (0.0123, "percentunit", "1.23%"),
        (64.56, "ops", "64.6 ops/s"),
        (1530.0, "short", "1.53 K"),
        (0.0, "cpm", "0 c/m"),
        (0.0, "decbytes", "0 B"),
        (64e6, "decbytes", "64 MB"),
        (1_536.0, "decbytes", "1.54 kB"),
        (math.nan, "s", "no data"),
        (math.inf, "s", "∞"),
    ],
)
def test_numbers_are_spelled_as_grafana_spells_them(value: float, unit: str, text: str) -> None:
    assert spell(value, unit) == text


def test_decimals_are_kept_if_they_are_asked_for() -> None:
    assert spell(4.0, "short", 1) == "4.0"
    assert spell(0.996, "percentunit", 0) == "100%"


def test_a_server_that_is_not_there_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["http://127.0.0.1:9", str(tmp_path)]) == 1
    assert "Prometheus at http://127.0.0.1:9 gave no answer" in capsys.readouterr().err


@pytest.mark.parametrize("name", BOARDS)
def test_the_page_of_the_boards_shows_a_picture_of_each_and_says_what_it_is(name: str) -> None:
    picture = ROOT / "docs" / "images" / f"{name}.png"
    assert picture.stat().st_size < 400_000
    page = (ROOT / "docs" / "sre-pack.md").read_text(encoding="utf-8")
    assert f"](images/{name}.png)" in page
    assert "Drawn by `make boards-real` with Grafana's own components" in page.replace("\n", " ")
    assert "Heatmaps are plotted" in page
