"""The dashboards as a Terraform module."""

from __future__ import annotations

from ._pack import Files, shipped

__all__ = ["terraform"]


def terraform(pack: Files) -> Files:
    """Return `main.tf` and the dashboards that it reads."""
    return {
        **shipped("main.tf"),
        **{path: text for path, text in pack.items() if path.startswith("dashboards/")},
    }
