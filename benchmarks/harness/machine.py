"""What a result says of where it comes from: enough to judge it by, nothing that names anybody's machine."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..inside.cores import why_unpinned
from .catalogue import ROOT
from .runner import Plan

__all__ = ["about"]


def about(plan: Plan, scale: float) -> dict[str, Any]:
    """The machine, the working tree, and what was asked for."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "commit": _commit(),
        "scale": scale,
        "rounds": plan.rounds,
        "close_rounds": plan.close_rounds,
        "other_rounds": plan.other_rounds,
        "effort": plan.effort,
        "regimes": {regime: why_unpinned(regime) or "pinned" for regime in plan.regimes},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    """The commit that was measured, marked if files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
