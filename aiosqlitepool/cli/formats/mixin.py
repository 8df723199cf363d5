"""The pack as a Prometheus mixin, for jsonnet."""

from __future__ import annotations

from ._pack import RULES, RUNBOOK, Files, shipped

__all__ = ["mixin"]


def mixin(pack: Files) -> Files:
    """Return `mixin.libsonnet` and what it imports: the rules as they are, and the dashboards."""
    return {
        **shipped("mixin.libsonnet", "jsonnetfile.json"),
        **{f"{name}.yml": pack[path] for name, path in RULES.items()},
        **{path: text for path, text in pack.items() if path.startswith("dashboards/")},
        "runbook.md": pack[RUNBOOK],
    }
