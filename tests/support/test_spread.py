"""How files are given to workers, and what becomes of those of a worker that has ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from .spread import ByFile, scope_of

TESTS = [f"tests/test_{file}.py::test_{test}" for file in "abc" for test in range(4)]


class Worker:
    """What a scheduler knows of one of xdist's workers."""

    shutting_down = False

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.given: list[str] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.given += [TESTS[index] for index in indices]

    def shutdown(self) -> None:
        self.shutting_down = True


@pytest.fixture
def spread(pytestconfig: pytest.Config) -> Any:
    config = SimpleNamespace(
        option=SimpleNamespace(loadscopereorder=True, debug=False), getvalue=lambda name: ["popen", "popen"]
    )
    found = ByFile(config)
    workers = [Worker("gw0"), Worker("gw1")]
    for worker in workers:
        found.add_node(worker)
    for worker in workers:
        found.add_node_collection(worker, TESTS)
    found.schedule()
    return SimpleNamespace(found=found, first=workers[0], second=workers[1])


def test_files_are_given_whole_and_in_order(spread: Any) -> None:
    assert (spread.first.given, spread.second.given) == (TESTS[:4], TESTS[4:8])


def test_the_stack_stays_together_but_for_the_leak_which_has_servers_of_its_own() -> None:
    assert {scope_of(f"tests/stack/{file}.py::test") for file in ("test_a", "test_b")} == {"tests/stack"}
    assert scope_of("tests/stack/test_leak.py::test") == "tests/stack/test_leak.py"


def test_the_test_that_ends_its_worker_is_not_begun_again_and_its_others_are(spread: Any) -> None:
    spread.found.mark_test_complete(spread.first, 0)
    assert spread.found.remove_node(spread.first) == TESTS[1]
    for index in range(4, 12):
        spread.found.mark_test_complete(spread.second, index)
    assert spread.second.given == [*TESTS[4:], *TESTS[2:4]]


def test_what_a_worker_has_finished_before_it_ends_is_not_given_again(spread: Any) -> None:
    for index in (0, 1, 2, 3, 8):
        spread.found.mark_test_complete(spread.first, index)
    assert spread.found.remove_node(spread.first) == TESTS[9]
    for index in range(4, 8):
        spread.found.mark_test_complete(spread.second, index)
    assert spread.second.given == [*TESTS[4:8], *TESTS[10:]]


def test_a_worker_that_has_done_all_leaves_nothing_behind(spread: Any) -> None:
    for index in (*range(4), *range(8, 12)):
        spread.found.mark_test_complete(spread.first, index)
    assert spread.found.remove_node(spread.first) is None
