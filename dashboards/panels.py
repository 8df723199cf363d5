"""How a panel of this house is made, said once: one function for each kind of panel.

A panel has a title, a question that it answers, advice for when the answer is bad, and a unit. Knows Grafana, and
nothing of pools.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from .looks import BAR, coloured, drawn, properties, thresholds

PROMETHEUS = models.DataSourceRef(type_val="prometheus", uid="${datasource}")


class Panel(Protocol):
    """What all kinds of panels have in common: where they stand is for the board to say."""

    def build(self) -> models.Panel:
        """The panel as Grafana reads it."""
        ...

    def id(self, id_val: int) -> Any:
        """Give it its number on the board."""
        ...

    def height(self, h: int) -> Any:
        """Make it so many rows of the grid high."""
        ...

    def span(self, w: int) -> Any:
        """Make it so many columns of the grid wide."""
        ...


P = TypeVar("P", bound=Panel)

# Units of what is often nothing but zeros: Grafana would draw an axis of them up to 100.
_COUNTS = ("cpm", "short")


# -- queries


def over_time(expr: str, legend: str, *, exemplars: bool = False) -> prometheus.Dataquery:
    """A query for every step of the time shown; `exemplars` adds dots that lead to traces."""
    query = prometheus.Dataquery().expr(expr).legend_format(legend).range()
    return query.exemplar(True) if exemplars else query


def now(expr: str, legend: str) -> prometheus.Dataquery:
    """A query for the end of the time shown."""
    return prometheus.Dataquery().expr(expr).legend_format(legend).instant()


# -- kinds of panels


def number(
    title: str,
    asks: str,
    advice: str,
    unit: str,
    query: prometheus.Dataquery,
    *,
    warn: float | None = None,
    bad: float | None = None,
    decimals: int | None = None,
) -> stat.Panel:
    """One large number and what it belongs to, coloured by how bad it is."""
    panel = (
        stat.Panel()
        .color_mode(common_models.BigValueColorMode.VALUE)
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .text_mode(common_models.BigValueTextMode.VALUE_AND_NAME)
        .justify_mode(common_models.BigValueJustifyMode.CENTER)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .no_value("no data")
        # Of its own accord, Grafana makes a long name too small to read.
        .text(common.VizTextDisplayOptions().title_size(14).value_size(30))
    )
    if decimals is not None:
        panel.decimals(decimals)
    return _finish(panel, title, asks, advice, unit, [query], thresholds(warn, bad))


def lines(
    title: str,
    asks: str,
    advice: str,
    unit: str,
    *queries: prometheus.Dataquery,
    warn: float | None = None,
    bad: float | None = None,
    stacked: bool = False,
    connected: bool = False,
    names: Sequence[str] = (),
    right: dict[str, str] | None = None,
    reaches: float | None = None,
    empty: str = "no data",
) -> timeseries.Panel:
    """Curves over time, thresholds dashed; `connected` draws a line over the gaps in them.

    `names` are values of a label that may appear as legends, `right` maps legends to the unit in which they stand
    at the right, `reaches` is how far the axis goes at least (of counts, to the highest threshold or to 1), and `empty`
    is what it says when there is nothing to show.
    """
    marked = warn is not None or bad is not None
    style = "DASHED" if marked else "OFF"
    panel = (
        timeseries.Panel()
        .no_value(empty)
        .draw_style(common_models.GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(25 if stacked else 8)
        .show_points(common_models.VisibilityMode.NEVER)
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode[style]))
        .axis_soft_min(0)
        .min(0)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
    )
    if reaches is None and unit in _COUNTS:
        reaches = bad or warn or 1
    if reaches is not None:
        panel.axis_soft_max(reaches)
    if connected:
        panel.span_nulls(True)
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    _finish(panel, title, asks, advice, unit, queries, thresholds(warn, bad))
    for name in (*(str(query.build().legend_format) for query in queries), *names):
        if own := drawn(name, (right or {}).get(name)):
            panel.override_by_name(name, properties(own))
    return panel


def heat(title: str, asks: str, advice: str, query: str) -> heatmap.Panel:
    """Durations in seconds over time, by bucket; `query` adds up buckets by `le`."""
    panel = (
        heatmap.Panel()
        .calculate(False)
        .cell_gap(1)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .scale(heatmap_models.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .y_axis(heatmap.YAxisConfig().unit("s").axis_placement(common_models.AxisPlacement.LEFT))
        .cell_values(heatmap.CellValues().unit("short"))
        .tooltip(heatmap.HeatmapTooltip().mode(common_models.TooltipDisplayMode.SINGLE).y_histogram(True))
        .show_legend()
    )
    buckets = over_time(query, "{{le}}", exemplars=True).format(PromQueryFormat.HEATMAP)
    return _finish(panel, title, asks, advice, "s", [buckets], thresholds())


def ranking(title: str, asks: str, advice: str, unit: str, *queries: prometheus.Dataquery) -> bargauge.Panel:
    """Numbers below each other, as bars of one scale."""
    panel = (
        bargauge.Panel()
        .display_mode(common_models.BarGaugeDisplayMode.BASIC)
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .value_mode(common_models.BarGaugeValueMode.COLOR)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.FIXED).fixed_color("blue"))
        .min(0)
        .decimals(1)
        # Of its own accord, Grafana makes the text of few bars so large that names are cut off.
        .text(common.VizTextDisplayOptions().title_size(12).value_size(14))
    )
    _finish(panel, title, asks, advice, unit, queries, thresholds())
    for name in (str(query.build().legend_format) for query in queries):
        if own := coloured(name):
            panel.override_by_name(name, properties(own))
    return panel


def columns(
    title: str,
    asks: str,
    advice: str,
    unit: str,
    values: dict[str, tuple[str, str]],
    names: dict[str, str],
    *,
    link: tuple[str, str],
    warn: float,
    bad: float,
) -> table.Panel:
    """A table of one row for each combination of `names` (label to heading), with `values` (heading to query, unit).

    The first value is shown as a bar against the thresholds and orders the rows, the highest first. `link` (title, URL)
    is where a row leads.
    """
    queries = [now(expr, heading).format(PromQueryFormat.TABLE) for heading, (expr, _) in values.items()]
    refs = string.ascii_uppercase
    headings = {f"Value #{ref}": heading for ref, heading in zip(refs, values, strict=False)}
    order = {name: place for place, name in enumerate([*names, *headings])}
    first = next(iter(values))
    panel = (
        plain_table()
        .with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            models.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": order,
                    "renameByName": {**names, **headings},
                },
            )
        )
        .sort_by([common.TableSortByFieldState().display_name(first).desc(True)])
    )
    _finish(panel, title, asks, advice, unit, queries, thresholds(warn, bad))
    for heading, (_, its_unit) in values.items():
        looks = {"unit": its_unit} | (BAR | {"min": 0, "max": bad} if heading == first else {})
        panel.override_by_name(heading, properties(looks))
    for heading in names.values():
        panel.override_by_name(heading, properties({"links": [{"title": link[0], "url": link[1]}]}))
    return panel


# -- what they share


def plain_table() -> table.Panel:
    """A table without anything in it."""
    panel = table.Panel().cell_options(common_models.TableAutoCellOptions())
    options: Any = panel.build().options
    options.footer = None  # gone from Grafana 13
    return panel


def _finish(
    panel: P,
    title: str,
    asks: str,
    advice: str,
    unit: str,
    queries: Sequence[prometheus.Dataquery],
    steps: dashboard.ThresholdsConfig,
) -> P:
    finished: Any = panel
    finished.title(title).description(describe(asks, advice)).unit(unit).thresholds(steps).datasource(PROMETHEUS)
    for ref, query in zip(string.ascii_uppercase, queries, strict=False):
        finished.with_target(query.ref_id(ref).datasource(PROMETHEUS))
    return panel


def describe(asks: str, advice: str) -> str:
    """The description of a panel."""
    return f"**{asks}** {advice}"
