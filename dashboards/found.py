"""Panels of what a search finds: traces in Tempo, and log records in Loki."""

from __future__ import annotations

from grafana_foundation_sdk.builders import logs, loki, table, tempo
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.tempo import SearchTableType

from .looks import thresholds
from .panels import describe, plain_table

__all__ = ["LOKI", "TEMPO", "records", "traces"]

TEMPO = models.DataSourceRef(type_val="tempo", uid="${tempo_datasource}")
LOKI = models.DataSourceRef(type_val="loki", uid="${loki_datasource}")


def traces(title: str, asks: str, advice: str, query: str) -> table.Panel:
    """The spans that a TraceQL query finds, each leading to its trace."""
    target = tempo.Dataquery().query_type("traceql").query(query).limit(20).spss(10)
    target.table_type(SearchTableType.SPANS).datasource(TEMPO).ref_id("A")
    panel = plain_table().datasource(TEMPO).with_target(target).unit("s")
    return panel.title(title).description(describe(asks, advice)).thresholds(thresholds())


def records(title: str, asks: str, advice: str, query: str) -> logs.Panel:
    """The log records that a LogQL query finds, the latest first."""
    target = loki.Dataquery().expr(query).datasource(LOKI).ref_id("A").max_lines(200)
    panel = (
        logs.Panel()
        .datasource(LOKI)
        .with_target(target)
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .sort_order(common_models.LogsSortOrder.DESCENDING)
        .unit("none")
    )
    return panel.title(title).description(describe(asks, advice)).thresholds(thresholds())
