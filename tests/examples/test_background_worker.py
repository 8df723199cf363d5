"""The job queue: its promise in this process, and its workers as a real program that is told to stop in mid-work."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from aiosqlitepool.events import ConnectionReleased
from aiosqlitepool.testing import Recorder
from examples import background_worker
from examples.background_worker import ATTEMPTS, CLAIM, RETRY_AFTER, Job, Queue, Worker, opened

from ..support.children import child
from ..support.clock import Clock

PROGRAM = Path(background_worker.__file__)
URLS = [f"http://127.0.0.1/{number}" for number in range(10)]


def rows(path: Path, select: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        return connection.execute(select).fetchall()


def states(path: Path) -> Counter[object]:
    return Counter(state for (state,) in rows(path, "SELECT state FROM job"))


# -- the queue


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
async def queue(path: Path, clock: Clock) -> AsyncIterator[Queue]:
    async with opened(str(path), 4) as queue:
        yield Queue(queue._pool, clock)


async def claimed(queue: Queue) -> Job:
    job = await queue.claim()
    assert job is not None
    return job


async def test_jobs_are_claimed_in_their_order(queue: Queue) -> None:
    await queue.add(URLS[:3])
    assert [(await claimed(queue)).url for _ in range(3)] == URLS[:3]
    assert await queue.claim() is None


async def test_a_job_is_claimed_by_one_only_however_many_ask_at_once(path: Path, queue: Queue, clock: Clock) -> None:
    await queue.add(URLS)
    async with opened(str(path), 4) as another:
        same_time = Queue(another._pool, clock)
        asked = await asyncio.gather(*(each.claim() for each in (queue, same_time) * 10))
    assert sorted(job.url for job in asked if job) == URLS


async def test_a_finished_job_has_its_result_and_is_not_claimed_again(path: Path, queue: Queue, clock: Clock) -> None:
    await queue.add(URLS[:1])
    assert await queue.finish(await claimed(queue), 200)
    clock.advance(2 * CLAIM)
    assert await queue.claim() is None
    assert rows(path, "SELECT * FROM result") == [(1, 200)]


async def test_a_claim_that_ran_out_goes_to_another_and_only_that_one_counts(
    path: Path, queue: Queue, clock: Clock
) -> None:
    await queue.add(URLS[:1])
    dead = await claimed(queue)
    assert await queue.claim() is None
    clock.advance(CLAIM)
    alive = await claimed(queue)
    assert not await queue.finish(dead, 500)
    assert not await queue.retry(dead, "too late")
    assert not await queue.give_back(dead)
    assert await queue.finish(alive, 200)
    assert not await queue.finish(dead, 500)
    assert rows(path, "SELECT * FROM result") == [(1, 200)]


async def test_a_failed_job_waits_longer_each_time_and_is_given_up_at_last(
    path: Path, queue: Queue, clock: Clock
) -> None:
    await queue.add(URLS[:1])
    for failures in range(ATTEMPTS):
        assert await queue.retry(await claimed(queue), f"failure {failures + 1}")
        clock.advance(RETRY_AFTER * 2**failures - 0.5)
        assert await queue.claim() is None
        clock.advance(0.5)
    assert await queue.claim() is None
    assert rows(path, "SELECT state, failures, error FROM job") == [("failed", ATTEMPTS, f"failure {ATTEMPTS}")]


async def test_a_job_that_was_given_back_is_due_at_once_and_did_not_fail(path: Path, queue: Queue) -> None:
    await queue.add(URLS[:1])
    job = await claimed(queue)
    assert await queue.give_back(job)
    assert await claimed(queue) == job._replace(claims=2)


async def test_every_connection_says_what_it_is_out_for(queue: Queue) -> None:
    recorder = Recorder()
    queue._pool.subscribe(recorder)
    await queue.add(URLS[:2])
    await queue.finish(await claimed(queue), 200)
    await queue.retry(await claimed(queue), "no answer")
    labels = [event.label for event in recorder.of(ConnectionReleased)]
    assert labels == ["add jobs", "claim a job", "finish job 1", "claim a job", "retry job 2"]


# -- a worker


async def test_a_worker_holds_no_connection_while_it_checks(queue: Queue) -> None:
    stop, used = asyncio.Event(), []

    async def check(url: str) -> int:
        used.append(queue._pool.stats().used)
        stop.set()
        return 200

    await queue.add(URLS[:1])
    await asyncio.wait_for(Worker(queue, check, stop).run(), 60)
    assert used == [0]


async def test_a_worker_outlives_whatever_a_job_raises(path: Path, queue: Queue) -> None:
    stop, asked = asyncio.Event(), []

    async def check(url: str) -> int:
        asked.append(url)
        if len(asked) == 1:
            raise ZeroDivisionError("a bug")
        stop.set()
        return 404

    await queue.add(URLS[:2])
    await asyncio.wait_for(Worker(queue, check, stop).run(), 60)
    assert rows(path, "SELECT state, error FROM job ORDER BY id") == [
        ("waiting", "ZeroDivisionError('a bug')"),
        ("done", None),
    ]


# -- the program


class Links:
    """A web server whose answers wait until they are let go. It remembers who asked for what."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.go = threading.Event()
        self._more = threading.Condition()
        links = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with links._more:
                    links.asked[self.path] += 1
                    links._more.notify_all()
                assert links.go.wait(100)
                broken = self.path.startswith("/broken")
                with contextlib.suppress(OSError):  # whoever asked may be gone by now
                    self.send_response(503 if broken else 200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def wait(self, requests: int) -> None:
        """Until so many have come in all."""
        with self._more:
            assert self._more.wait_for(lambda: self.asked.total() >= requests, 60)

    def urls(self, count: int) -> list[str]:
        return [f"{self.url}/{number}" for number in range(count)]


@pytest.fixture
def links() -> Iterator[Links]:
    links = Links()
    thread = threading.Thread(target=links.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield links
    finally:
        links.go.set()
        links.server.shutdown()
        links.server.server_close()
        thread.join()


def add(path: Path, urls: list[str]) -> None:
    subprocess.run([sys.executable, str(PROGRAM), str(path), "add", *urls], check=True, timeout=60)


class Working:
    """`background_worker.py DATABASE work`, as a process of its own."""

    def __init__(self, path: Path, *options: str) -> None:
        self._command = [sys.executable, "-X", "dev", str(PROGRAM), str(path), "work", *options]

    def __enter__(self) -> Working:
        self._child = child(self._command, within=200, stderr=subprocess.PIPE)
        self._process = self._child.__enter__()
        self.said = ""
        # Before that, a signal would end it as it ends any program.
        self.listen("are at work")
        return self

    def listen(self, words: str) -> None:
        """Until it has said these words."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said += line
            if words in line:
                return
        raise AssertionError(f"it ended without a word of {words!r}: {self.said}")

    def signal(self, which: signal.Signals = signal.SIGTERM) -> None:
        self._process.send_signal(which)

    def end(self) -> int:
        """How it ended, once it has."""
        _, rest = self._process.communicate(timeout=60)
        self.said += rest
        return self._process.returncode

    def __exit__(self, *error: Any) -> None:
        self._child.__exit__(*error)


def work_off(path: Path, done: Callable[[], bool]) -> None:
    """Run the program until that is so, and end it."""
    with Working(path) as working:
        while not done():
            working.listen("job ")
        working.signal()
        assert working.end() == 0


def test_at_sigterm_the_jobs_at_hand_finish_and_no_other_begins(path: Path, links: Links) -> None:
    add(path, links.urls(12))
    with Working(path, "--workers", "3", "--grace", "60") as working:
        links.wait(3)
        working.signal()
        working.listen("stopping")
        links.go.set()
        assert working.end() == 0
    assert "Traceback" not in working.said
    assert states(path) == {"done": 3, "waiting": 9}
    work_off(path, lambda: states(path)["done"] == 12)
    assert links.asked == Counter(f"/{number}" for number in range(12))
    assert rows(path, "SELECT count(*), sum(status = 200) FROM result") == [(12, 12)]


def test_what_does_not_finish_in_time_goes_back_and_is_done_by_the_next(path: Path, links: Links) -> None:
    add(path, links.urls(5))
    with Working(path, "--workers", "3", "--grace", "0") as working:
        links.wait(3)
        working.signal(signal.SIGINT)
        assert working.end() == 0
    assert len(re.findall(r"job \d: put back into the queue", working.said)) == 3
    assert "Traceback" not in working.said
    assert rows(path, "SELECT DISTINCT state, due, failures FROM job") == [("waiting", 0.0, 0)]
    links.go.set()
    work_off(path, lambda: states(path)["done"] == 5)
    assert rows(path, "SELECT count(*) FROM result") == [(5,)]


def test_stopped_again_and_again_it_loses_no_job_and_does_none_twice(path: Path, links: Links) -> None:
    links.go.set()
    add(path, links.urls(150))
    for stop_after in (5, 30, 31, 70, 110):
        with Working(path, "--workers", "8") as working:
            links.wait(stop_after)
            working.signal()
            assert working.end() == 0
        assert "Traceback" not in working.said
    work_off(path, lambda: states(path)["done"] == 150)
    assert links.asked == Counter(f"/{number}" for number in range(150))
    assert rows(path, "SELECT count(*) FROM result") == [(150,)]


def test_two_processes_share_the_work(path: Path, links: Links) -> None:
    add(path, links.urls(40))
    with Working(path, "--workers", "2") as one, Working(path, "--workers", "2") as two:
        links.wait(4)
        links.go.set()
        links.wait(40)
        for working in (one, two):
            working.signal()
            assert working.end() == 0
    assert links.asked == Counter(f"/{number}" for number in range(40))
    assert states(path) == {"done": 40}


def test_a_link_that_fails_is_tried_again(path: Path, links: Links) -> None:
    links.go.set()
    add(path, [f"{links.url}/broken"])
    with Working(path) as working:
        working.listen("503 Service Unavailable")
        working.listen("503 Service Unavailable")
        working.signal()
        assert working.end() == 0
    assert links.asked["/broken"] >= 2
    shown = subprocess.run(
        [sys.executable, str(PROGRAM), str(path), "show"], capture_output=True, text=True, timeout=60, check=True
    )
    assert re.fullmatch(
        r"1 waiting - http://\S+/broken HTTPStatusError\(.*503 Service Unavailable.*", shown.stdout[:-1], re.S
    )
