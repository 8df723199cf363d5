from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aiosqlitepool.pool import slots as slots_module
from aiosqlitepool.pool.slots import Slot, Slots


class Waiter:
    """As much of a future as a queue needs."""

    def __init__(self) -> None:
        self.slot: Slot[str] | None = None
        self.error: BaseException | None = None
        self.cancelled = False

    def done(self) -> bool:
        return self.cancelled or self.slot is not None or self.error is not None

    def set_result(self, result: Slot[str], /) -> None:
        if self.done():
            raise asyncio.InvalidStateError
        self.slot = result

    def set_exception(self, exception: BaseException, /) -> None:
        if self.done():
            raise asyncio.InvalidStateError
        self.error = exception


class Caller:
    """Who waits, by that future."""

    def __init__(self) -> None:
        self.turn: Any = None


def all_taken(size: int = 1) -> tuple[Slots[str], list[Slot[str]]]:
    """Slots of which every one is taken and has a connection."""
    slots: Slots[str] = Slots(size)
    taken = []
    for _ in range(size):
        slot = slots.take_vacant()
        assert slot is not None
        slot.connection = f"connection {slot.number}"
        taken.append(slot)
    return slots, taken


def waiting(slots: Slots[str], count: int) -> list[Waiter]:
    return [queued(slots).turn for _ in range(count)]


def queued(slots: Slots[str]) -> Caller:
    """Somebody new at the end of the queue."""
    slots.enqueue(caller := Caller(), Waiter())
    return caller


def test_at_first_every_slot_is_vacant() -> None:
    slots: Slots[str] = Slots(3)
    slots.check()
    assert (slots.used, slots.idle, slots.waiting) == (0, 0, 0)
    assert [slot.number for slot in slots.all] == [1, 2, 3]


def test_vacant_slots_are_taken_in_order_until_none_is_left() -> None:
    slots: Slots[str] = Slots(2)
    taken = [slots.take_vacant(), slots.take_vacant(), slots.take_vacant()]
    assert taken == [*slots.all, None]
    assert slots.used == 2


def test_a_slot_with_a_connection_becomes_idle() -> None:
    slots, (slot,) = all_taken()
    slots.give_back(slot)
    slots.check()
    assert (slots.used, slots.idle) == (0, 1)
    assert slots.take_vacant() is None


def test_a_slot_without_a_connection_becomes_vacant() -> None:
    slots, (slot,) = all_taken()
    slot.connection = None
    slots.give_back(slot)
    slots.check()
    assert (slots.used, slots.idle) == (0, 0)
    assert slots.take_vacant() is slot


def test_the_idle_slot_used_last_is_taken_first() -> None:
    slots, (first, second, third) = all_taken(3)
    for slot in (second, first, third):
        slots.give_back(slot)
    assert [slots.take_idle() for _ in range(4)] == [third, first, second, None]


def test_idle_slots_are_listed_longest_idle_first() -> None:
    slots, (first, second) = all_taken(2)
    slots.give_back(second)
    slots.give_back(first)
    assert slots.idle_slots() == (second, first)


def test_one_particular_idle_slot_can_be_taken_once() -> None:
    slots, (first, second) = all_taken(2)
    slots.give_back(first)
    slots.give_back(second)
    assert slots.take_this(first)
    assert not slots.take_this(first)
    slots.check()
    assert slots.idle_slots() == (second,)


def test_a_slot_goes_to_the_oldest_waiter_and_stays_taken() -> None:
    slots, (slot,) = all_taken()
    first, second = waiting(slots, 2)
    slots.give_back(slot)
    slots.check()
    assert (first.slot, second.slot) == (slot, None)
    assert (slots.used, slots.idle, slots.waiting) == (1, 0, 1)


def test_an_empty_slot_goes_to_the_oldest_waiter_too() -> None:
    slots, (slot,) = all_taken()
    (waiter,) = waiting(slots, 1)
    slot.connection = None
    slots.give_back(slot)
    slots.check()
    assert waiter.slot is slot


def test_waiters_are_served_first_come_first_served() -> None:
    slots, (slot,) = all_taken()
    waiters = waiting(slots, 5)
    served = []
    for _ in waiters:
        slots.give_back(slot)
        slots.check()
        served.append(next(waiter for waiter in waiters if waiter.slot is slot and waiter not in served))
    assert served == waiters


def test_a_waiter_that_is_done_but_has_not_left_is_passed_over() -> None:
    slots, (slot,) = all_taken()
    cancelled, patient = waiting(slots, 2)
    cancelled.cancelled = True
    slots.give_back(slot)
    slots.check()
    assert patient.slot is slot


def test_with_only_done_waiters_the_slot_becomes_idle() -> None:
    slots, (slot,) = all_taken()
    for waiter in waiting(slots, 2):
        waiter.cancelled = True
    slots.give_back(slot)
    slots.check()
    assert (slots.idle, slots.waiting) == (1, 0)


def test_a_waiter_leaves_from_the_middle_of_the_queue() -> None:
    slots, (slot,) = all_taken()
    callers = [queued(slots) for _ in range(3)]
    first, second, third = (caller.turn for caller in callers)
    slots.leave(callers[1])
    slots.leave(callers[1])  # harmless
    slots.check()
    assert slots.waiting == 2
    slots.give_back(slot)
    slots.give_back(slot)
    slots.check()
    assert (first.slot, second.slot, third.slot) == (slot, None, slot)
    assert slots.waiting == 0


def test_a_caller_that_was_served_cannot_leave_any_more() -> None:
    slots, (slot,) = all_taken()
    served, patient = queued(slots), queued(slots)
    slots.give_back(slot)
    slots.leave(served)
    slots.check()
    assert slots.queue() == (patient,)


@pytest.mark.parametrize("order", [1, -1])
def test_a_queue_that_everybody_leaves_is_empty_whatever_their_order(order: int) -> None:
    slots, (slot,) = all_taken()
    for caller in [queued(slots) for _ in range(9)][::order]:
        slots.leave(caller)
        slots.check()
    slots.give_back(slot)
    assert (slots.waiting, slots.idle) == (0, 1)


def test_those_who_left_the_middle_of_a_queue_take_up_no_more_of_it_than_those_who_wait() -> None:
    slots, _ = all_taken()
    first, *middle, last = (queued(slots) for _ in range(1_000))
    for caller in middle:
        slots.leave(caller)
        slots.check()
    assert slots.queue() == (first, last)


def test_a_thousand_who_leave_the_middle_of_a_queue_have_it_made_anew_ten_times_at_most() -> None:
    slots, _ = all_taken()
    _, *middle, _ = (queued(slots) for _ in range(1_000))
    queues = [slots._queue]
    for caller in middle:
        slots.leave(caller)
        if slots._queue is not queues[-1]:
            queues.append(slots._queue)
    assert len(queues) <= 11


def interrupted_while_the_first_left() -> tuple[Slots[str], Slot[str], Caller]:
    """Ctrl-C fell into the middle of `leave()`: the slots, the one that is taken, and the second in the queue."""
    slots, (slot,) = all_taken()
    first, second = queued(slots), queued(slots)
    first.turn = None
    return slots, slot, second


def test_a_slot_goes_to_the_next_though_ctrl_c_fell_into_the_leaving_of_the_first() -> None:
    slots, slot, second = interrupted_while_the_first_left()
    waiter = second.turn
    assert slots.oldest_caller is second
    slots.give_back(slot)
    assert waiter.slot is slot
    assert slots.waiting == 0
    slots.check()


def test_a_pool_closes_though_ctrl_c_fell_into_the_leaving_of_the_first() -> None:
    slots, _, second = interrupted_while_the_first_left()
    waiter = second.turn
    assert slots.dismiss() == [waiter]
    assert slots.waiting == 0
    slots.check()


def test_the_next_to_leave_puts_the_count_right_though_ctrl_c_fell_into_the_leaving_of_the_first() -> None:
    slots, _, second = interrupted_while_the_first_left()
    third = queued(slots)
    slots.leave(second)
    slots.check()
    assert slots.queue() == (third,)
    assert slots.waiting == 1


def test_the_count_is_right_at_once_though_ctrl_c_fell_into_the_leaving_of_the_first() -> None:
    """Bug: giving back took it out of the queue, but not out of those who had left."""
    slots, slot, _ = interrupted_while_the_first_left()
    slots._left.add(slots._queue[0])
    waiting(slots, 9)
    slots.give_back(slot)
    assert slots.waiting == len(slots.queue()) == 9
    slots.check()


def interrupts(line: int, work: Callable[[], None]) -> bool:
    """Whether Ctrl-C before so many lines of the slots' code comes before the end of the work."""
    left = line

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != slots_module.__file__:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("who", range(4))
def test_wherever_ctrl_c_falls_into_the_leaving_of_one_the_others_are_served(who: int) -> None:
    for line in count(1):
        slots, (slot,) = all_taken()
        callers = [queued(slots) for _ in range(5)]
        slots.leave(callers.pop(2))
        waiters = [caller.turn for caller in callers]
        waiters[who].cancelled = True
        was_interrupted = interrupts(line, partial(slots.leave, callers[who]))
        for waiter in waiters:
            if not waiter.cancelled:
                slots.give_back(slot)
                assert waiter.slot is slot
        slots.give_back(slot)
        slots.check()
        assert (slots.waiting, slots.idle) == (0, 1)
        if not was_interrupted:
            break
    assert line > 4


def test_no_less_than_nobody_waits_though_another_thread_changes_the_queue_in_the_middle_of_the_count() -> None:
    slots, _ = all_taken()
    slots._left.add("somebody who came and left since the length of the queue was read")
    assert slots.waiting == 0


def test_the_queue_can_be_looked_at_while_another_thread_changes_it() -> None:
    class Busy(deque[Any]):
        """Somebody queues just when somebody else begins to look, three times over."""

        changes = 3

        def __iter__(self) -> Any:
            iterator = super().__iter__()
            if self.changes:
                self.changes -= 1
                queued(slots)
            return iterator

    slots, _ = all_taken()
    slots._queue = Busy()
    first = queued(slots)
    callers = slots.queue()
    assert callers[0] is first
    assert len(callers) == 4


def test_the_oldest_waiter_is_the_one_at_the_head_of_the_queue() -> None:
    slots, _ = all_taken()
    assert slots.oldest_caller is None
    first, second = queued(slots), queued(slots)
    assert slots.oldest_caller is first
    slots.leave(first)
    assert slots.oldest_caller is second


def test_the_queue_tells_who_waits() -> None:
    slots, _ = all_taken()
    first, second, third = (queued(slots) for _ in range(3))
    assert slots.queue() == (first, second, third)
    slots.leave(second)
    assert slots.queue() == (first, third)


def test_dismissing_empties_the_queue_oldest_first() -> None:
    slots, _ = all_taken()
    waiters = waiting(slots, 3)
    assert slots.dismiss() == waiters
    assert slots.waiting == 0


def broken() -> list[tuple[str, Slots[str]]]:
    """Slots in every state that the invariants forbid, and what `check` says of it."""
    twice_idle, (slot,) = all_taken()
    twice_idle.give_back(slot)
    twice_idle.give_back(slot)
    twice_vacant: Slots[str] = Slots(1)
    twice_vacant.give_back(twice_vacant.all[0])
    in_two_places, (slot,) = all_taken()
    in_two_places.give_back(slot)
    slot.connection = None
    in_two_places.give_back(slot)
    foreign, _ = all_taken()
    foreign.give_back(all_taken()[1][0])
    emptied, (slot,) = all_taken()
    emptied.give_back(slot)
    slot.connection = None
    filled: Slots[str] = Slots(1)
    filled.all[0].connection = "connection"
    needless: Slots[str] = Slots(1)
    waiting(needless, 1)
    headless, _, _ = interrupted_while_the_first_left()
    deserted, _ = all_taken()
    _, *others = (queued(deserted) for _ in range(3))
    for caller in others:
        caller.turn = None
        deserted._left.add(caller)
    return [
        ("idle twice", twice_idle),
        ("vacant twice", twice_vacant),
        ("idle and vacant", in_two_places),
        ("another pool", foreign),
        ("idle slot without", emptied),
        ("vacant slot with", filled),
        ("someone waits", needless),
        ("the first in the queue", headless),
        ("more have left", deserted),
    ]


@pytest.mark.parametrize(("complaint", "slots"), broken())
def test_check_tells_each_broken_invariant(complaint: str, slots: Slots[str]) -> None:
    with pytest.raises(AssertionError, match=complaint):
        slots.check()


def test_a_slot_shows_its_number_and_its_connection() -> None:
    _, (slot,) = all_taken()
    assert repr(slot) == "<Slot 1: 'connection 1'>"


class AnyOrder(RuleBasedStateMachine):
    """Every order of taking, giving back, waiting and giving up, against a queue that is plainly right."""

    def __init__(self) -> None:
        super().__init__()
        self.slots: Slots[str] = Slots(3)
        self.taken: list[Slot[str]] = []
        self.queue: deque[Waiter] = deque()
        self.callers: dict[Waiter, Caller] = {}

    @rule()
    def acquire(self) -> None:
        slot = self.slots.take_idle() or self.slots.take_vacant()
        if slot is None:
            caller = queued(self.slots)
            self.queue.append(caller.turn)
            self.callers[caller.turn] = caller
        else:
            slot.connection = slot.connection or "connection"
            self.taken.append(slot)

    @precondition(lambda self: self.taken)
    @rule(which=st.integers(min_value=0), loses_connection=st.booleans())
    def release(self, which: int, loses_connection: bool) -> None:
        slot = self.taken.pop(which % len(self.taken))
        if loses_connection:
            slot.connection = None
        self.slots.give_back(slot)
        while self.queue and self.queue[0].cancelled:
            self.queue.popleft()
        if self.queue:
            assert self.queue[0].slot is slot
            self.queue.popleft()
            slot.connection = "connection"
            self.taken.append(slot)

    @precondition(lambda self: self.queue)
    @rule(which=st.integers(min_value=0), leaves_at_once=st.booleans())
    def give_up(self, which: int, leaves_at_once: bool) -> None:
        waiter = self.queue[which % len(self.queue)]
        waiter.cancelled = True
        if leaves_at_once:
            self.queue.remove(waiter)
            self.slots.leave(self.callers[waiter])

    @rule()
    def trim(self) -> None:
        for slot in self.slots.idle_slots()[:1]:
            assert self.slots.take_this(slot)
            slot.connection = None
            self.slots.give_back(slot)

    @invariant()
    def every_slot_is_in_one_place_and_nobody_waits_for_a_free_one(self) -> None:
        self.slots.check()
        assert self.slots.used == len(self.taken)
        assert self.slots.used + self.slots.idle <= 3
        assert all(waiter.slot is None for waiter in self.queue)


AnyOrder.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None, derandomize=True)
TestInvariantsHoldInAnyOrder = AnyOrder.TestCase
