"""Take the levels of processes that have ended out of the sums of prometheus_client's multiprocess mode.

A process that ends by itself writes zeros; one that is killed cannot, and no server has a hook for it: its levels would
stay in the sums. So each process looks for the files of others that no longer run.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re

from prometheus_client.multiprocess import mark_process_dead

__all__ = ["forget_ended_processes"]

# Of levels: those of live processes. The files of counters, histograms and times stay.
_LEVELS = re.compile(r"gauge_live\w+_(\d+)\.db\Z")


def forget_ended_processes() -> None:
    """Remove the levels of processes that have ended from the directory of the multiprocess mode.

    All processes that share it must be of one machine and one namespace of process numbers.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR") or os.environ.get("prometheus_multiproc_dir")  # noqa: SIM112
    if folder is None:  # the program has changed its environment since
        return
    found = (_LEVELS.search(path) for path in glob.glob(os.path.join(glob.escape(folder), "gauge_live*_*.db")))
    for number in {int(each[1]) for each in found if each is not None}:
        if not _runs(number):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                mark_process_dead(number, folder)  # type: ignore[no-untyped-call]


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs as another user
        return True
    return True
