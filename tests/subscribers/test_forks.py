from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from aiosqlitepool.subscribers import _forks
from aiosqlitepool.subscribers._counts import Account, Ledger
from aiosqlitepool.subscribers._opentelemetry_deferred import Backlog, Flusher

PROGRAM = """
import os, signal, threading
from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.subscribers._opentelemetry_deferred import Backlog, Flusher
from aiosqlitepool.subscribers._counts import Account, Ledger

recorded, at_work = [], threading.Barrier(4)

def stay(*_):
    at_work.wait()
    threading.Event().wait()

ledger, flusher = Ledger(Account), Flusher()
backlog = Backlog(Account("app.db"), recorded.append, lambda seconds: recorded.append(seconds) or stay())
backlog.note(0, [], [1.0, 2.0])

def scrape():
    with ledger.reading():
        stay()

def add():
    class Slow:
        @property
        def finished(self):
            stay()
    flusher._backlogs = (Slow(),)
    flusher.add(backlog)

for work in (scrape, add, lambda: backlog.record(10)):
    threading.Thread(target=work, daemon=True).start()
at_work.wait()
flusher._backlogs = ()

child = os.fork()
if not child:
    signal.alarm(60)  # instead of hanging for ever
    stay = lambda *_: None
    ledger.open(SQLiteConnectionPool(lambda: None))
    flusher.add(backlog)
    flusher.record_all(10)
    os._exit(len(recorded))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_while_others_scrape_and_record_can_do_so_too() -> None:
    # Python 3.12 warns of forking beside threads, which is what this is about.
    python = [sys.executable, "-W", "ignore::DeprecationWarning"]
    done = subprocess.run([*python, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout.strip(), done.stderr) == ("2", "")


def test_in_a_forked_process_every_lock_is_a_new_one() -> None:
    ledger, flusher, backlog = Ledger(Account), Flusher(), Backlog(Account("app.db"), print, print)
    owners: tuple[Any, ...] = (ledger, flusher, backlog)
    before = [each._lock for each in owners]
    _forks._renew()
    assert not any(each._lock is lock for each, lock in zip(owners, before, strict=True))
