"""Three mistakes, put in on purpose: the simulation or the state machine must notice each.

A mutant is the source text of a module with one replacement, compiled and run; no file is touched.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
import types

import pytest

from aiosqlitepool.pool import acquire as lending
from aiosqlitepool.pool import inventory as stock
from aiosqlitepool.pool import slots

from .pool import test_slots_machine
from .support.simulation import SimulationError, simulate

# More than enough: each was noticed within a few worlds.
STEPS = 100_000


def mutate(module: types.ModuleType, old: str, new: str) -> types.ModuleType:
    """The module with `old`, which must occur exactly once, replaced by `new`."""
    assert module.__file__ is not None
    with open(module.__file__, encoding="utf-8") as file:
        source = file.read()
    assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times in {module.__name__}"
    mutated = source.replace(old, new)
    assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source)), "the mutant does what the original does"
    spec = importlib.util.spec_from_file_location(f"{module.__name__}_mutant", module.__file__)
    assert spec is not None
    mutant = importlib.util.module_from_spec(spec)
    mutant.__package__ = module.__package__
    sys.modules[mutant.__name__] = mutant
    try:
        exec(compile(mutated, "<mutant>", "exec"), mutant.__dict__)
    finally:
        del sys.modules[mutant.__name__]
    return mutant


@pytest.fixture
def lost_hand_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiter cancelled after the slot was handed to it keeps it."""
    mutant = mutate(
        lending,
        "elif future.exception() is None and (slot := future.result()) is not None:\n"
        "                self._stock.put_back(slot, self._clock())",
        "elif future.exception() is None and future.result() is not None:\n                pass",
    )
    monkeypatch.setattr(lending.Lending, "_pass_on", mutant.Lending._pass_on)


@pytest.fixture
def missing_done_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot is handed to the oldest waiter, also to one that was cancelled a moment ago."""
    mutant = mutate(slots, "if waiter is not None and not waiter.done():", "if waiter is not None:")
    monkeypatch.setattr(slots.Slots, "give_back", mutant.Slots.give_back)


@pytest.fixture
def forgotten_give_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a connection could not be opened, its slot stays taken."""
    mutant = mutate(
        stock,
        "        self.put_back(preparation.slot, self._clock())\n",
        "        if failure is None:\n            self.put_back(preparation.slot, self._clock())\n",
    )
    monkeypatch.setattr(stock.Stock, "prepared", mutant.Stock.prepared)


def simulated() -> None:
    simulate(1, STEPS, report=lambda text: None)


def test_without_a_mutant_the_simulation_is_content() -> None:
    simulated()


@pytest.mark.usefixtures("lost_hand_back")
def test_a_lost_hand_back_is_noticed_by_the_simulation() -> None:
    with pytest.raises(SimulationError, match=r"can be lent|forgotten|does not end|hang|never closed"):
        simulated()


@pytest.mark.usefixtures("missing_done_check")
def test_a_missing_done_check_is_noticed_by_the_simulation() -> None:
    with pytest.raises(SimulationError, match=r"InvalidState|invalid state|can be lent|forgotten"):
        simulated()


@pytest.mark.usefixtures("missing_done_check")
def test_a_missing_done_check_is_noticed_by_the_state_machine() -> None:
    with pytest.raises(AssertionError, match="a waiter that is done"):
        test_slots_machine.play(shrink=False)


@pytest.mark.usefixtures("forgotten_give_back")
def test_a_forgotten_give_back_on_a_failed_open_is_noticed_by_the_simulation() -> None:
    with pytest.raises(SimulationError, match=r"can be lent|forgotten|does not end|hang"):
        simulated()


def test_a_mutation_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(AssertionError, match="occurs 0 times"):
        mutate(slots, "no such line", "")
