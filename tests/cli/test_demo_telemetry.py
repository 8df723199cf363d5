"""The demo as an SRE sees it: `/metrics` while it runs, OTLP where the environment says so."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request

from ..support.children import child
from ..support.otlp import over_http

COMMAND = [sys.executable, "-m", "aiosqlitepool", "demo", "--scale", "0.0005", "--requests", "50", "--workers", "20"]
COMMAND += ["--selects", "50"]


def test_the_demo_serves_metrics_until_ctrl_c() -> None:
    with child([*COMMAND, "--serve"], within=100, stdout=subprocess.PIPE) as demo:
        assert demo.stdout is not None
        try:
            said = ""
            for line in demo.stdout:
                said += line
                if "until Ctrl-C" in line:
                    break
            (url,) = re.findall(r"http://127\.0\.0\.1:\d+/metrics", said)
            with urllib.request.urlopen(url, timeout=30) as answer:
                metrics = answer.read().decode()
        finally:
            demo.send_signal(signal.SIGINT)
            assert demo.wait(60) == 0
    assert re.search(r'aiosqlitepool_acquires_total\{.*queued.*"demo: User pages"\} [1-9]', metrics)


def test_the_demo_exports_to_otlp_when_the_environment_says_so() -> None:
    with over_http() as receiver:
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, timeout=100, check=True)
        assert "OTLP endpoint" in done.stdout
        points = receiver.metric("db.client.connection.use_time").histogram.data_points
        assert sum(point.count for point in points) > 100
