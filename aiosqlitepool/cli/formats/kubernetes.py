"""The pack as objects of Kubernetes: for the Prometheus operator, and for Grafana with its sidecar or its operator."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from ._pack import RULES, RUNBOOK, Files, dashboards, shipped

__all__ = ["grafana_operator", "kubernetes"]

_RULES = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: aiosqlitepool-{name}
  labels:
    # The label by which the Prometheus of the chart kube-prometheus-stack selects rules. Use the ruleSelector of yours.
    release: kube-prometheus-stack
spec:
"""

# For the sidecar of Grafana's chart, which kube-prometheus-stack enables.
_CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: aiosqlitepool-{name}
  labels:
    grafana_dashboard: "1"
data:
  aiosqlitepool-{name}.json: |
"""

_GRAFANA_DASHBOARD = """\
apiVersion: grafana.integreatly.org/v1beta1
kind: GrafanaDashboard
metadata:
  name: aiosqlitepool-{name}
spec:
  # The labels of your Grafana object.
  instanceSelector:
    matchLabels:
      dashboards: grafana
  allowCrossNamespaceImport: true
  folder: SQLite
  json: |
"""


def kubernetes(pack: Files) -> Files:
    """Return manifests: rules and monitors for the Prometheus operator, dashboards for Grafana's sidecar."""
    return {
        "prometheusrules.yaml": _documents(_RULES, {name: pack[path] for name, path in RULES.items()}, "  "),
        "dashboards.yaml": _documents(_CONFIG_MAP, dashboards(pack), "    "),
        **shipped("kustomization.yaml", "podmonitor.yaml", "servicemonitor.yaml"),
        "runbook.md": pack[RUNBOOK],
    }


def grafana_operator(pack: Files) -> Files:
    """Return the dashboards as objects of the Grafana operator."""
    return {"grafanadashboards.yaml": _documents(_GRAFANA_DASHBOARD, dashboards(pack), "    ")}


def _documents(head: str, bodies: Files, indent: str) -> str:
    """Return one YAML document for each body: `head` with its name, then the body, indented."""
    documents: Iterable[str] = (head.format(name=name) + textwrap.indent(text, indent) for name, text in bodies.items())
    return "---\n".join(documents)
