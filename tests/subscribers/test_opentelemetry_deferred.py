from __future__ import annotations

import threading

from aiosqlitepool.subscribers._counts import Account
from aiosqlitepool.subscribers._opentelemetry_deferred import Backlog


def test_a_release_that_finds_somebody_recording_does_not_wait_for_it_and_nothing_is_recorded_twice() -> None:
    recording, go_on = threading.Event(), threading.Event()
    recorded: list[float] = []

    def record(seconds: float) -> None:
        recording.set()
        go_on.wait(60)
        recorded.append(seconds)

    backlog = Backlog(Account("app.db"), recorded.append, record)
    backlog.note(0, [], [1.0, 2.0, 3.0])
    collection = threading.Thread(target=backlog.record, args=(10,))
    collection.start()
    assert recording.wait(60)
    backlog.record(10, wait=False)  # would hang here
    assert recorded == []
    go_on.set()
    collection.join()
    assert recorded == [1.0, 2.0, 3.0]
    assert len(backlog) == 0
