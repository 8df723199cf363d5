"""`Slots` against a model of three lists, under every order of calls that hypothesis can think of."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aiosqlitepool.pool.slots import Slot, Slots

EXAMPLES = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,  # the same in every run: a red build must mean a change
    suppress_health_check=list(HealthCheck),
)


class FakeCaller:
    """Who waits, by that future."""

    turn: Any = None


class FakeWaiter:
    """As strict as a future: answered twice, it raises."""

    def __init__(self) -> None:
        self.caller = FakeCaller()
        self.answer: Slot[Any] | BaseException | None = None
        self.cancelled = False

    def done(self) -> bool:
        return self.cancelled or self.answer is not None

    def set_result(self, result: Slot[Any], /) -> None:
        assert not self.done(), "an answer for a waiter that is done"
        self.answer = result

    def set_exception(self, exception: BaseException, /) -> None:
        assert not self.done(), "an answer for a waiter that is done"
        self.answer = exception


class SlotsMachine(RuleBasedStateMachine):
    """The model: who is taken, idle (newest last), vacant, and who waits in which order."""

    @initialize(size=st.integers(1, 4))
    def make(self, size: int) -> None:
        self.slots: Slots[str] = Slots(size)
        self.taken: list[Slot[str]] = []
        self.idle: list[Slot[str]] = []
        self.waiting: deque[FakeWaiter] = deque()
        self.corpses: list[FakeWaiter] = []  # cancelled, but still in the queue: their task has not run yet

    @rule()
    def acquire(self) -> None:
        """As an acquire does: the idle slot used last, else a vacant one, else wait."""
        idle, vacant = self.slots.take_idle(), None
        if self.idle:
            assert idle is self.idle.pop(), "idle slots must be lent newest first"
        else:
            assert idle is None
            vacant = self.slots.take_vacant()
        slot = idle or vacant
        if slot is None:
            waiter = FakeWaiter()
            self.slots.enqueue(waiter.caller, waiter)
            self.waiting.append(waiter)
        else:
            assert slot not in self.taken, "a slot was taken twice"
            self.taken.append(slot)

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), content=st.sampled_from(["keep", "open", "drop"]))
    def give_back(self, data: st.DataObject, content: str) -> None:
        slot = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        if content != "keep":
            slot.connection = "a connection" if content == "open" else None
        self.slots.give_back(slot)
        self.corpses = [corpse for corpse in self.corpses if corpse.caller.turn is corpse]
        if self.waiting:
            first = self.waiting.popleft()
            assert first.answer is slot, "the slot belongs to the oldest waiter"
            self.taken.append(slot)
        elif slot.connection is not None:
            self.idle.append(slot)

    @precondition(lambda self: self.idle)
    @rule(data=st.data())
    def trim_one(self, data: st.DataObject) -> None:
        slot = self.idle.pop(data.draw(st.integers(0, len(self.idle) - 1)))
        assert self.slots.take_this(slot)
        assert not self.slots.take_this(slot), "taken already"
        self.taken.append(slot)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), leaves=st.booleans())
    def cancel(self, data: st.DataObject, leaves: bool) -> None:
        """A cancelled waiter is done at once; out of the queue it gets only when its task runs."""
        waiter = self.waiting[data.draw(st.integers(0, len(self.waiting) - 1))]
        self.waiting.remove(waiter)
        waiter.cancelled = True
        if leaves:
            self.slots.leave(waiter.caller)
        else:
            self.corpses.append(waiter)

    @precondition(lambda self: self.corpses)
    @rule()
    def run_a_cancelled_task(self) -> None:
        corpse = self.corpses.pop()
        self.slots.leave(corpse.caller)
        self.slots.leave(corpse.caller)  # harmless

    @rule()
    def dismiss(self) -> None:
        dismissed = self.slots.dismiss()
        assert [waiter for waiter in dismissed if not waiter.done()] == list(self.waiting), "oldest first, all of them"
        self.waiting.clear()
        self.corpses.clear()

    @invariant()
    def the_slots_agree_with_the_model(self) -> None:
        self.slots.check()
        assert self.slots.idle_slots() == tuple(self.idle)
        assert self.slots.idle == len(self.idle)
        assert self.slots.used == len(self.taken)
        assert self.slots.waiting == len(self.waiting) + len(self.corpses)
        assert len(set(self.taken)) == len(self.taken)
        assert len(self.taken) + len(self.idle) + len(self.slots._vacant) == len(self.slots.all)

    @invariant()
    def the_queue_is_in_order_of_arrival(self) -> None:
        queue = self.slots.queue()
        assert [caller.turn for caller in queue if not caller.turn.done()] == list(self.waiting)
        assert self.slots.oldest_caller is (queue[0] if queue else None)


def play(*, shrink: bool = True) -> None:
    """Let hypothesis look for a history that breaks the model, and then for the shortest such."""
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    run_state_machine_as_test(SlotsMachine, settings=settings(EXAMPLES, phases=phases, report_multiple_bugs=False))


def test_slots_do_what_the_model_does_in_any_order() -> None:
    play()


def test_a_slot_taken_from_another_pool_is_noticed_by_the_check() -> None:
    slots: Slots[str] = Slots(1)
    slots.take_vacant()
    slots.give_back(Slot(7))
    with pytest.raises(AssertionError, match="another pool"):
        slots.check()
