"""`Slots` against a plain model, under every order of calls that hypothesis can think of."""

from __future__ import annotations

import math
from collections import Counter, deque
from itertools import count
from typing import Any

import pytest
from hypothesis import Phase, settings
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

from ..support.slots import check_slots

EXAMPLES = settings(max_examples=200, stateful_step_count=50)

# The pool's own timeout, in seconds of the model.
TIMEOUT = 10


class FakeAnswer:
    """As strict as a future: answered twice, it raises."""

    def __init__(self) -> None:
        self.given: Slot[Any] | BaseException | str | None = None

    def done(self) -> bool:
        return self.given is not None

    def set_result(self, result: Slot[Any] | str, /) -> None:
        assert not self.done(), "an answer for a waiter that is done"
        self.given = result

    def set_exception(self, exception: BaseException, /) -> None:
        self.set_result(exception)  # type: ignore[arg-type]


class FakeRequest:
    """A caller: a waiter first, perhaps, and then a holder."""

    numbers = count(1)

    def __init__(self, now: float, timeout: float | None, *, shared: bool) -> None:
        self.answer: Any = FakeAnswer()
        self.asked = float(next(self.numbers))
        self.shared = shared
        self.timeout = timeout
        self.deadline = now + (TIMEOUT if timeout is None else timeout)


class SlotsMachine(RuleBasedStateMachine):
    """The model: which caller holds which slot, what is prepared, what is idle (newest last), and the queue."""

    @initialize(size=st.integers(1, 4))
    def make(self, size: int) -> None:
        self.slots: Slots[str] = Slots(size)
        self.now = 0.0
        self.holders: list[tuple[FakeRequest, Slot[str]]] = []
        self.preparing: list[Slot[str]] = []
        self.idle: list[Slot[str]] = []
        self.waiting: deque[FakeRequest] = deque()
        # Cancelled, but still in the queue: their task has not run yet.
        self.cancelled: list[FakeRequest] = []
        # The slot that shared requests may join.
        self.open_to_all: Slot[str] | None = None
        self.held = False

    # -- what the model expects

    def sharers(self, slot: Slot[str]) -> int:
        """Return how many shared requests hold this slot."""
        return sum(request.shared for request, held in self.holders if held is slot)

    def next_in_row(self, *, already: int) -> list[FakeRequest]:
        """Return the waiters that a slot goes to which so many shared requests hold already."""
        row: list[FakeRequest] = []
        if self.held:
            return row
        for request in self.waiting:
            if not request.shared:
                break
            row.append(request)
        return row or ([] if already else list(self.waiting)[:1])

    def expect(self, slot: Slot[str], requests: list[FakeRequest]) -> None:
        """Expect that exactly these waiters, the oldest, were handed this slot."""
        for request in requests:
            assert request is self.waiting.popleft()
            assert request.answer.given is slot, "the slot belongs to the oldest waiters"
            self.holders.append((request, slot))

    def give_back(self, slot: Slot[str], request: FakeRequest | None = None) -> None:
        """Give a slot back that is no longer among the holders'; `request` had it."""
        sharers = self.sharers(slot)
        if sharers:
            row = self.next_in_row(already=sharers) if self.open_to_all is slot else []
        else:
            row = self.next_in_row(already=0) if slot.connection is not None else []
            if self.open_to_all is slot:
                self.open_to_all = None
            if row and row[0].shared:
                self.open_to_all = slot
        if self.slots.part(slot, request):
            self.slots.give_back(slot)
        self.expect(slot, row)
        if not sharers and not row and slot.connection is not None:
            self.idle.append(slot)

    def take(self, *, vacant: bool = True) -> Slot[str] | None:
        """Take the idle slot used last, else a vacant one."""
        idle = self.slots.take_idle()
        assert idle is (self.idle.pop() if self.idle and not self.held else None), "idle slots are taken newest first"
        slot = idle or (self.slots.take_vacant() if vacant else None)
        assert slot is None or not self.held, "a held slot was taken"
        assert slot is None or slot not in self.taken(), "a slot was taken twice"
        return slot

    def prepare(self, slot: Slot[str]) -> None:
        self.preparing.append(slot)

    def feed(self) -> None:
        """As `Inventory.feed` does for those who wait and for whom no connection is prepared."""
        while self.slots.waiting > len(self.preparing) and (slot := self.take()) is not None:
            assert self.slots.waiter(len(self.preparing)) is self.slots.queue()[len(self.preparing)]
            self.prepare(slot)

    def taken(self) -> set[Slot[str]]:
        return {*self.preparing, *(slot for _, slot in self.holders)}

    def one_holder(self, data: st.DataObject) -> tuple[FakeRequest, Slot[str]]:
        return self.holders.pop(data.draw(st.integers(0, len(self.holders) - 1)))

    # -- what may happen

    @rule(shared=st.booleans(), fresh=st.booleans(), timeout=st.sampled_from([None, None, None, 3, 30]))
    def acquire(self, shared: bool, fresh: bool, timeout: float | None) -> None:
        """As an acquire does: join or take a fresh idle slot, else wait, and have one prepared if there is one."""
        request = FakeRequest(self.now, timeout, shared=shared)
        if shared:
            slot = self.open_to_all
            may_join = slot is not None and not self.slots.waiting
            joined = self.slots.join(request)
            assert joined is (slot if may_join else None)
            if joined is not None:
                self.holders.append((request, joined))
                return
        taken = self.take(vacant=False) if fresh else None
        if taken is not None:
            self.holders.append((request, taken))
            if shared:
                self.slots.share(taken, request)
                self.open_to_all = taken
            return
        slot = self.take()
        self.slots.enqueue(request)
        self.waiting.append(request)
        if slot is not None:
            self.prepare(slot)

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), fails=st.booleans())
    def release(self, data: st.DataObject, fails: bool) -> None:
        """The last sharer may find the connection broken; a sharer that fails lets no further request join."""
        request, slot = self.one_holder(data)
        if fails and self.sharers(slot):
            self.slots.end_sharing(slot)
            self.open_to_all = None if self.open_to_all is slot else self.open_to_all
        elif fails:
            slot.connection = None
        self.give_back(slot, request)
        if slot.connection is None:
            self.feed()

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def find_it_dead(self, data: st.DataObject) -> None:
        """A holder that finds its connection dead waits again, before those that asked later, and has it replaced."""
        request, slot = self.one_holder(data)
        self.slots.end_sharing(slot)
        self.open_to_all = None if self.open_to_all is slot else self.open_to_all
        request.answer = FakeAnswer()
        self.slots.enqueue(request, again=True)
        self.waiting.insert(sum(each.asked < request.asked for each in self.waiting), request)
        if self.sharers(slot):
            self.give_back(slot, request)
            self.feed()
        else:
            self.slots.part(slot, request)
            self.prepare(slot)

    @precondition(lambda self: self.preparing)
    @rule(data=st.data(), outcome=st.sampled_from(["opened", "opened", "failed"]))
    def end_preparing(self, data: st.DataObject, outcome: str) -> None:
        """As `Inventory._prepared` does: a failure goes to the oldest waiter, the slot back."""
        slot = self.preparing.pop(data.draw(st.integers(0, len(self.preparing) - 1)))
        slot.connection = "a connection" if outcome == "opened" else None
        if outcome == "failed":
            error = OSError("disk I/O error")
            assert self.slots.fail_oldest(error) == bool(self.waiting)
            if self.waiting:
                assert self.waiting.popleft().answer.given is error
        self.give_back(slot)
        self.feed()

    @precondition(lambda self: self.idle)
    @rule(data=st.data())
    def trim(self, data: st.DataObject) -> None:
        slot = self.idle.pop(data.draw(st.integers(0, len(self.idle) - 1)))
        assert self.slots.take_this(slot)
        assert not self.slots.take_this(slot), "taken already"
        slot.connection = None
        self.give_back(slot)
        self.feed()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), leaves=st.booleans())
    def cancel(self, data: st.DataObject, leaves: bool) -> None:
        """A cancelled waiter is done at once; it leaves the queue only when its task runs."""
        request = self.waiting[data.draw(st.integers(0, len(self.waiting) - 1))]
        self.waiting.remove(request)
        request.answer.set_result("cancelled")
        if leaves:
            self.slots.leave(request)
        else:
            self.cancelled.append(request)

    @precondition(lambda self: self.cancelled)
    @rule()
    def run_a_cancelled_task(self) -> None:
        request = self.cancelled.pop()
        self.slots.leave(request)
        self.slots.leave(request)  # harmless

    @rule(seconds=st.integers(1, 6))
    def time_out(self, seconds: float) -> None:
        """As the housekeeper does with the requests whose deadline has passed."""
        self.now += seconds
        queue = self.slots.queue()
        late, due = self.slots.overdue(self.now)
        assert late == [request for request in queue if request.deadline <= self.now]
        assert due == min((each.deadline for each in queue if each.deadline > self.now), default=math.inf)
        for request in late:
            self.slots.leave(request)
            if not request.answer.done():
                request.answer.set_result("too late")
                self.waiting.remove(request)

    @rule()
    def hold(self) -> None:
        self.slots.hold()
        self.held, self.open_to_all = True, None

    @precondition(lambda self: self.held)
    @rule()
    def resume(self) -> None:
        self.slots.resume()
        self.held = False
        self.feed()

    @rule()
    def close(self) -> None:
        """As closing does with all that wait."""
        for request in self.waiting:
            assert self.slots.fail_oldest(error := OSError("closed"))
            assert request.answer.given is error, "all, oldest first"
        assert not self.slots.fail_oldest(OSError("closed"))
        self.waiting.clear()

    # -- what is always true

    @invariant()
    def the_slots_agree_with_the_model(self) -> None:
        check_slots(self.slots, len(self.preparing))
        taken = self.taken()
        assert self.slots.idle_slots() == tuple(self.idle)
        assert self.slots.idle == len(self.idle)
        assert self.slots.used == len(taken)
        assert len(taken) + len(self.idle) + len(self.slots._vacant) == len(self.slots.all)

    @invariant()
    def a_slot_has_one_holder_or_sharers_that_it_knows(self) -> None:
        exclusive = Counter(slot for request, slot in self.holders if not request.shared)
        assert all(count == 1 for count in exclusive.values())
        for slot in self.slots.all:
            sharers = [request for request, held in self.holders if held is slot and request.shared]
            assert list(slot.sharing.requests) == sharers, "a sharer is not known"
            assert not (sharers and slot in exclusive), "a slot has a holder and sharers"
            assert not (slot in self.preparing and (sharers or slot in exclusive)), "a lent slot is prepared"

    @invariant()
    def the_queue_is_in_order(self) -> None:
        queue = self.slots.queue()
        self.cancelled = [request for request in self.cancelled if request in queue]
        assert [request for request in queue if not request.answer.done()] == list(self.waiting)
        assert self.slots.waiting == len(queue) == len(self.waiting) + len(self.cancelled)
        assert self.slots.oldest is (queue[0] if queue else None)


def play(*, shrink: bool = True) -> None:
    """Let hypothesis look for a history that breaks the model, and then for the shortest such."""
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    run_state_machine_as_test(SlotsMachine, settings=settings(EXAMPLES, phases=phases, report_multiple_bugs=False))


def test_slots_do_what_the_model_does_in_any_order() -> None:
    play()


def test_a_slot_of_another_pool_is_noticed_by_the_check() -> None:
    slots: Slots[str] = Slots(1)
    slots.take_vacant()
    slots.give_back(Slot(7))
    with pytest.raises(AssertionError, match="another pool"):
        check_slots(slots)
