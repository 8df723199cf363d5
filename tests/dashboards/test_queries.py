"""Every query of every board asks for what there is, in a way that no pipeline's extra labels can upset."""

from __future__ import annotations

import itertools

import promql_parser
import pytest

from aiosqlitepool.subscribers import _attributes, _buckets, _metrics
from aiosqlitepool.subscribers._metrics import Metric
from dashboards.render.board import Query

from .promql import RANGE, RATE_INTERVAL, every_query, parsed, selectors

SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "level": ("",),
    "gauge": ("",),
    "time": ("",),
}
METRICS = {metric.family + suffix: metric for metric in _metrics.METRICS for suffix in SUFFIXES[metric.kind]}
BUCKETS = {
    _metrics.WAIT_TIME: _buckets.WAIT_BUCKETS,
    _metrics.CREATE_TIME: _buckets.CREATE_BUCKETS,
    _metrics.USE_TIME: _buckets.USE_BUCKETS,
}
IDENTITY = ("job", "instance")
# The series of a label begins with its first leak, of which there is no rate.
FROM_THE_FIRST = "Leaks by label"


def labels_of(metric: Metric) -> set[str]:
    return {*IDENTITY, *metric.labels, *(("le",) if metric.kind == "histogram" else ())}


@every_query()
def test_it_is_promql(query: Query) -> None:
    parsed(query.expr)


@every_query()
def test_it_names_metrics_of_the_catalogue_only(query: Query) -> None:
    assert {selector.name for selector in selectors(query.expr)} <= set(METRICS)


@every_query()
def test_it_names_labels_of_these_metrics_only(query: Query) -> None:
    for selector in selectors(query.expr):
        named = itertools.chain(selector.matchers, *(labels or () for labels in selector.groupings))
        assert set(named) <= labels_of(METRICS[selector.name])


@every_query()
def test_it_says_by_what_it_adds_up(query: Query) -> None:
    """Or the labels `otel_scope_*` would split, and in a division lose, what belongs together."""
    for selector in selectors(query.expr):
        assert any(labels is not None for labels in selector.groupings)


@every_query()
def test_it_names_no_label_of_a_scope(query: Query) -> None:
    assert "otel_scope" not in query.expr


@every_query()
def test_its_legend_names_labels_that_the_answer_has(query: Query) -> None:
    outermost = {label for selector in selectors(query.expr) for label in selector.groupings[-1] or ()}
    for part in query.legend.split("{{")[1:]:
        assert part.partition("}}")[0] in outermost


@every_query()
def test_it_picks_what_the_variables_pick(query: Query) -> None:
    pool = _metrics.label_name(_attributes.POOL)
    for selector in selectors(query.expr):
        for label, variable in (("job", "$job"), ("instance", "$instance"), (pool, "$pool")):
            assert selector.matchers[label] == (promql_parser.MatchOp.Re, variable)


@every_query()
def test_it_looks_back_as_far_as_the_board_says(query: Query) -> None:
    for selector in selectors(query.expr):
        if selector.seconds is not None:
            assert selector.seconds == (RANGE if selector.function == "increase" else RATE_INTERVAL)


@every_query()
def test_it_takes_the_rate_of_what_only_grows_and_of_nothing_else(query: Query) -> None:
    for selector in selectors(query.expr):
        grows = METRICS[selector.name].kind in ("counter", "histogram") and query.panel != FROM_THE_FIRST
        assert (selector.function in ("rate", "increase")) == grows


@every_query()
def test_its_buckets_are_spelled_as_floats_and_exist(query: Query) -> None:
    for selector in selectors(query.expr):
        if "le" in selector.matchers:
            _, bound = selector.matchers["le"]
            assert bound in {str(float(at)) for at in BUCKETS[METRICS[selector.name]]}


@every_query()
def test_its_literal_values_are_known(query: Query) -> None:
    for selector in selectors(query.expr):
        metric = METRICS[selector.name]
        for label in map(_metrics.label_name, metric.attributes):
            if label in selector.matchers and metric.known:
                assert selector.matchers[label][1] in metric.known


@every_query()
def test_it_asks_only_for_series_of_this_library(query: Query) -> None:
    for selector in selectors(query.expr):
        fixed = METRICS[selector.name].fixed
        assert [selector.matchers[label][1] for label in map(_metrics.label_name, fixed)] == [*fixed.values()]


def test_a_selector_knows_what_is_around_it() -> None:
    (found,) = selectors('topk(3, sum by (job) (rate(x_total{le="1.0"}[$__rate_interval])))')
    assert (found.name, found.function, found.seconds) == ("x_total", "rate", RATE_INTERVAL)
    assert found.groupings == (None, ("job",))
    assert found.matchers == {"le": (promql_parser.MatchOp.Equal, "1.0")}


@pytest.mark.parametrize("wrong", ["sum by (", "rate(x)", "x{le=1}", "topk(x_total)"])
def test_the_parser_refuses_what_is_not_promql(wrong: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parsed(wrong)
