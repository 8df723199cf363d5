"""Three mistakes, put in on purpose: the simulation or the state machine must notice each.

A mutant is the source text of a module with one replacement, compiled and run; no file is touched.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
import types

import pytest

from aiosqlitepool.pool import acquire, inventory, slots

from .pool import test_slots_machine
from .support.measuring import unmeasured
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
def kept_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiter cancelled after the slot was handed to it keeps the slot."""
    mutant = mutate(
        acquire,
        "elif answer.exception() is None:\n                self._inventory.put_back_unused(answer.result(), lease)",
        "elif answer.exception() is None:\n                pass",
    )
    monkeypatch.setattr(acquire.Acquirer, "_leave", mutant.Acquirer._leave)


@pytest.fixture
def missing_done_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot is handed to the oldest waiter, also to one that was cancelled a moment ago."""
    mutant = mutate(slots, "if not request.answer.done():", "if request.answer is not None:")
    monkeypatch.setattr(slots.Slots, "_first", mutant.Slots._first)


@pytest.fixture
def forgotten_give_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a connection could not be opened, its slot stays taken."""
    mutant = mutate(
        inventory,
        "        self.put_back(slot, now)\n        if error is not None and not opened:\n",
        "        if error is None:\n            self.put_back(slot, now)\n        elif not opened:\n",
    )
    monkeypatch.setattr(inventory.Inventory, "_prepared", mutant.Inventory._prepared)


def simulated() -> None:
    with unmeasured():
        simulate(1, STEPS, report=lambda text: None)


def test_without_a_mutant_the_simulation_is_content() -> None:
    simulated()


@pytest.mark.usefixtures("kept_slot")
def test_a_slot_kept_by_a_cancelled_waiter_is_noticed_by_the_simulation() -> None:
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
