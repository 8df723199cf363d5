"""What every board has around its panels: variables, alerts as annotations, a link to the other board, the grid.

Knows no panel in particular.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

from aiosqlitepool.subscribers import _metrics as _semconv

from .panels import PROMETHEUS, Panel
from .queries import OURS, POOL

B = TypeVar("B")

OVERVIEW, DEPTH = "aiosqlitepool-overview", "aiosqlitepool-pool"

_WIDTH = 24
# Every value, and thereby every series that has the label: what "All" stands for.
_ALL = ".+"
# What the builders add of themselves: a place in a menu, from Grafana 12 on, and what only variables
# of intervals have.
_IN_A_MENU = ("placement",)
_OF_INTERVALS = ("auto", "auto_min", "auto_count")
# Where alerts are not of one instance or pool, they lack the label; so "or none" is part of each choice.
_FIRING = (
    'ALERTS{alertname=~"Aiosqlitepool.*", alertstate="firing", '
    f'job=~"$job|", instance=~"$instance|", {POOL}=~"$pool|"}}'
)


@dataclass(frozen=True, slots=True)
class Row:
    """Panels beside each other under one heading, of one height, `widths` in columns of 24 (evenly if not given).

    A row that is collapsed asks nothing of its data sources until it is opened.
    """

    title: str
    height: int
    panels: Sequence[Panel]
    widths: Sequence[int] = ()
    collapsed: bool = False

    @property
    def lines(self) -> int:
        """How many lines of the grid it takes, its heading among them."""
        return 1 if self.collapsed else 1 + self.height

    def placed(self, first_id: int, line: int) -> dashboard.Row:
        """The row on this line, with its panels in it if it is collapsed; all others follow it on the board."""
        at = models.GridPos(h=1, w=_WIDTH, x=0, y=line)
        row = dashboard.Row(self.title).id(first_id).grid_pos(at).collapsed(self.collapsed)
        widths = self.widths or [_WIDTH // len(self.panels)] * len(self.panels)
        for place, (panel, width) in enumerate(zip(self.panels, widths, strict=True), start=1):
            panel.id(first_id + place)
            panel.height(self.height)
            panel.span(width)
            if self.collapsed:
                row.with_panel(panel)  # type: ignore[arg-type]
        return row


def board(
    uid: str, title: str, about: str, rows: Sequence[Row], *, link: dashboard.DashboardLink, one_pool: bool = False
) -> dashboard.Dashboard:
    """A board that Grafana is not to edit, of these rows, over any number of instances, and of pools or `one_pool`.

    `one_pool` begins with the first pool, not with all of them.
    """
    made = (
        dashboard.Dashboard(f"aiosqlitepool / {title}")
        .uid(uid)
        .description(about)
        .tags(["aiosqlitepool", "sqlite"])
        .readonly()
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .variables([*_data_sources(), *_choices(one_pool=one_pool)])
        .annotation(_alerts())
        .link(link)
    )
    number, line = 1, 0
    for row in rows:
        made.with_row(row.placed(number, line))
        number, line = number + 1 + len(row.panels), line + row.lines
        for panel in () if row.collapsed else row.panels:
            made.with_panel(panel)  # type: ignore[arg-type]
    return made


def link_to(uid: str, title: str, tooltip: str) -> dashboard.DashboardLink:
    """A link to another board that takes the choices and the time along."""
    link = dashboard.DashboardLink(title).type(models.DashboardLinkType.LINK).url(f"/d/{uid}")
    link.tooltip(tooltip).icon("dashboard").include_vars(True).keep_time(True)
    return _without(link, *_IN_A_MENU)


def _choices(*, one_pool: bool) -> list[dashboard.QueryVariable]:
    of_instances = 'job=~"$job", instance=~"$instance"'
    return [
        _chosen("job", "job", ""),
        _chosen("instance", "instance", 'job=~"$job"'),
        _chosen("pool", POOL, of_instances, one=one_pool),
    ]


def _chosen(name: str, label: str, among: str, *, one: bool = False) -> dashboard.QueryVariable:
    """A variable whose values are those that a label has on the pools that `among` matches."""
    query = f"label_values({_semconv.MAX.family}{{{', '.join(filter(None, (OURS, among)))}}}, {label})"
    variable = (
        dashboard.QueryVariable(name)
        .label(name.title())
        .datasource(PROMETHEUS)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        # Also where one is to be chosen: in Grafana 10, a link may come from a board where all were.
        .all_value(_ALL)
        .include_all(not one)
        # Of a variable with several values, Grafana escapes what means something in a regular expression. Of others it
        # does not: `c++.db` would be an error, and `app.db` would match `app-db` too.
        .multi(True)
    )
    if not one:
        variable.current(models.VariableOption(text="All", value="$__all"))
    return _without(variable, *_OF_INTERVALS)


def _data_sources() -> list[dashboard.DatasourceVariable]:
    kinds = {"datasource": "prometheus", "tempo_datasource": "tempo", "loki_datasource": "loki"}
    labels = {"prometheus": "Data source", "tempo": "Tempo data source", "loki": "Loki data source"}
    return [
        _without(dashboard.DatasourceVariable(name).label(labels[kind]).type(kind), *_OF_INTERVALS)
        for name, kind in kinds.items()
    ]


def _alerts() -> dashboard.AnnotationQuery:
    return _without(
        dashboard.AnnotationQuery()
        .name("Alerts")
        .datasource(PROMETHEUS)
        .enable(True)
        .icon_color("red")
        .expr(_FIRING)
        .step("30s")
        .title_format("{{alertname}}")
        .text_format(f"{{{{{POOL}}}}} {{{{instance}}}}")
        .tag_keys("severity"),
        *_IN_A_MENU,
    )


def _without(builder: B, *attributes: str) -> B:
    """The builder, without what it adds of itself."""
    made: Any = builder
    for attribute in attributes:
        setattr(made.build(), attribute, None)
    return builder
