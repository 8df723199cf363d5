"""The PromQL that the boards are made of, from the names that the subscribers use; knows no Grafana but its variables.

Every query picks what the board's variables pick, and says by which labels it adds up: whatever labels a pipeline adds
besides (OpenTelemetry's `otel_scope_*`) are gone from its answer.
"""

from __future__ import annotations

from aiosqlitepool.subscribers import _attributes
from aiosqlitepool.subscribers import _metrics as _semconv
from aiosqlitepool.subscribers._metrics import Metric, label_name

POOL = label_name(_attributes.POOL)
STATE = label_name(_attributes.STATE)
PATH = label_name(_attributes.ACQUIRE_PATH)
ERROR = label_name(_attributes.ERROR_TYPE)
REASON = label_name(_attributes.CLOSE_REASON)
CAUSE = label_name(_attributes.ROLLBACK_CAUSE)
OUTCOME = label_name(_attributes.TRANSACTION_OUTCOME)
KIND = label_name(_attributes.BUSY_KIND)
RESULT = label_name(_attributes.CHECKPOINT_RESULT)
CODE = label_name(_attributes.STATUS_CODE)
BACKUP_RESULT = label_name(_attributes.BACKUP_RESULT)
LABEL = label_name(_attributes.LABEL)
OPERATION = label_name(_attributes.OPERATION)
SUMMARY = label_name(_attributes.SUMMARY)
PLAN_WARNING = label_name(_attributes.PLAN_WARNING)
PLACE = label_name(_attributes.STATEMENT_PLACE)

# What tells one pool of one process from all others.
EACH = ("job", "instance", POOL)

# Legends: the pool, and the process it is in.
POOL_NAME = f"{{{{{POOL}}}}}"
INSTANCE = "{{instance}}"
POOL_AT = f"{POOL_NAME} · {INSTANCE}"

OURS = f'{label_name(_attributes.SYSTEM)}="sqlite"'
SELECTED = f'job=~"$job", instance=~"$instance", {POOL}=~"$pool"'


def series(name: str, *matchers: str) -> str:
    """The series of this name that the variables pick, and of these those that the matchers do."""
    # Other libraries have metrics of these names, too.
    ours = (OURS,) if name.startswith("db_") else ()
    return f"{name}{{{', '.join((*ours, SELECTED, *matchers))}}}"


def total(metric: Metric, *by: str, where: str = "", lately: bool = False) -> str:
    """A level, added up: as it is, or averaged over the interval that rates are over."""
    level = series(metric.family, *filter(None, [where]))
    return f"sum by ({', '.join(by)}) ({f'avg_over_time({level}[$__rate_interval])' if lately else level})"


def oldest(metric: Metric, *by: str) -> str:
    """An age, of which the oldest counts."""
    return largest(metric, *by)


def largest(metric: Metric, *by: str) -> str:
    """A gauge, which cannot be added up."""
    return f"max by ({', '.join(by)}) ({series(metric.family)})"


def smallest(metric: Metric, *by: str) -> str:
    """A gauge of which the least counts."""
    return f"min by ({', '.join(by)}) ({series(metric.family)})"


def used(*by: str, lately: bool = False) -> str:
    """Connections in use, or being opened, checked or reset."""
    return total(_semconv.COUNT, *by, where=f'{STATE}="used"', lately=lately)


def waiting(*by: str, lately: bool = False) -> str:
    """Requests that queue."""
    return total(_semconv.PENDING_REQUESTS, *by, lately=lately)


def limit(*by: str) -> str:
    """Connections that may be open."""
    return total(_semconv.MAX, *by)


def rate(metric: Metric, *by: str, where: str = "") -> str:
    """Occurrences per second: of a counter's event, or of a histogram's observations."""
    suffix = "count" if metric.kind == "histogram" else "total"
    return _per_second(f"{metric.family}_{suffix}", by, where)


def so_far(metric: Metric, *by: str, where: str = "") -> str:
    """How often a counter's event occurred since its processes began: a series that begins with its first is whole."""
    return f"sum by ({', '.join(by)}) ({series(f'{metric.family}_total', *filter(None, [where]))})"


def per_minute(metric: Metric, *by: str, where: str = "") -> str:
    """Occurrences per minute, for what is rare."""
    return f"60 * {rate(metric, *by, where=where)}"


def busy(metric: Metric, *by: str, where: str = "") -> str:
    """Seconds per second that a histogram's durations add up to: how many go on at once, by Little's law."""
    return _per_second(f"{metric.family}_sum", by, where)


def buckets(metric: Metric, *by: str) -> str:
    """Observations per second by bucket, for a quantile or a heatmap."""
    return _per_second(f"{metric.family}_bucket", ("le", *by), "")


def quantile(q: float, metric: Metric, *by: str) -> str:
    """The duration that a share of `q` of the observations stayed below, in seconds."""
    return f"histogram_quantile({q}, {buckets(metric, *by)})"


def share_over(seconds: float, metric: Metric, *by: str) -> str:
    """The share of the observations that took longer; `seconds` is one of the metric's buckets."""
    # Whole bounds are "1.0" where metrics are scraped, and "1" where they arrive by OTLP.
    bound = f'le="{seconds}"' if seconds % 1 else f'le=~"{int(seconds)}(\\\\.0)?"'
    within = _per_second(f"{metric.family}_bucket", by, bound)
    return f"1 - {within} / {rate(metric, *by)}"


def in_range(metric: Metric, *by: str) -> str:
    """How much a counter grew in the time that the board shows: how often its event occurred, or for how long."""
    return _in_range(f"{metric.family}_total", by)


def busy_at(q: float, metric: Metric, *by: str) -> str:
    """How many would go on at once in the time shown if each took as long as the quantile `q` of all of them."""
    lasts = f"histogram_quantile({q}, {_in_range(f'{metric.family}_bucket', ('le', *by))})"
    return f"{_in_range(f'{metric.family}_count', by)} / $__range_s * {lasts}"


# Of one instance: how many connections would be in use at this moment, had it had them.
ASKED_FOR = f"{used(*EACH)} + {waiting(*EACH)}"


def asked_for(share: float) -> str:
    """How many connections would have been enough in this share of the moments shown, on the busiest instance."""
    return highest(f"quantile_over_time({share}, ({ASKED_FOR})[$__range:$__interval])")


def highest(query: str) -> str:
    """The highest of the answer, whosever it is."""
    return f"max by () ({query})"


def worst(number: int, query: str) -> str:
    """The so many highest of the answer."""
    return f"topk({number}, {query})"


def _per_second(name: str, by: tuple[str, ...], where: str) -> str:
    return f"sum by ({', '.join(by)}) (rate({series(name, *filter(None, [where]))}[$__rate_interval]))"


def _in_range(name: str, by: tuple[str, ...]) -> str:
    return f"sum by ({', '.join(by)}) (increase({series(name)}[$__range]))"
