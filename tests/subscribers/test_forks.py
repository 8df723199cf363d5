from __future__ import annotations

import os
import subprocess
import sys

import pytest

from aiosqlitepool.subscribers import _common
from aiosqlitepool.subscribers._counts import Counts, PoolCounts
from aiosqlitepool.subscribers._level_updater import LevelUpdater

PROGRAM = """
import os, signal, threading
from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.subscribers._counts import Counts, PoolCounts

at_work = threading.Barrier(2)
counts = Counts(PoolCounts)

def scrape():
    with counts.reading():
        at_work.wait()
        threading.Event().wait()

threading.Thread(target=scrape, daemon=True).start()
at_work.wait()

child = os.fork()
if not child:
    signal.alarm(60)  # instead of hanging forever
    counts.attach(SQLiteConnectionPool(lambda: None, name="app.db"))
    with counts.reading() as every:
        os._exit(len(every))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_during_a_scrape_can_attach_and_scrape() -> None:
    # Python 3.12 warns of forking beside threads, which is what this is about.
    python = [sys.executable, "-W", "ignore::DeprecationWarning"]
    done = subprocess.run([*python, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout.strip(), done.stderr) == ("1", "")


def test_in_a_forked_process_every_lock_is_a_new_one() -> None:
    counts, updater = Counts(PoolCounts), LevelUpdater(lambda levels: None, lambda pool, errors: None)
    before = (counts._lock, counts._reading, updater._lock)
    _common._renew()
    after = (counts._lock, counts._reading, updater._lock)
    assert not any(new is old for new, old in zip(after, before, strict=True))
