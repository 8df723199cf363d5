from __future__ import annotations

import asyncio
import dis
import math
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, pairwise
from types import CodeType, FrameType
from typing import Any

import pytest

from aiosqlitepool.pool import slots as slots_module
from aiosqlitepool.pool.slots import Slot, Slots

from ..support.slots import check_slots


class Answer:
    """As much of a future as a queue needs. Like a future, it refuses a second answer."""

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


_clock = count(1)


class Request:
    """As much of a checkout as a queue needs."""

    def __init__(self, *, shared: bool = False, deadline: float = math.inf, timeout: float | None = None) -> None:
        self.answer: Any = Answer()
        self.shared = shared
        self.asked = float(next(_clock))
        self.deadline = deadline
        self.timeout = timeout

    @property
    def slot(self) -> Slot[str] | None:
        """The slot that it was handed, if it was."""
        slot: Slot[str] | None = self.answer.slot
        return slot


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


def queued(slots: Slots[str], **what: Any) -> Request:
    """Return a new request at the end of the queue."""
    slots.enqueue(request := Request(**what))
    return request


def waiting(slots: Slots[str], count: int) -> list[Request]:
    """Return so many new requests at the end of the queue."""
    return [queued(slots) for _ in range(count)]


def in_a_row(slots: Slots[str], kinds: str) -> list[Request]:
    """Return new requests at the end of the queue: "s" is a shared one, "x" an exclusive one."""
    return [queued(slots, shared=kind == "s") for kind in kinds]


def served(requests: list[Request]) -> str:
    """Return "1" for each request that has been handed a slot, "0" for each that has not."""
    return "".join("0" if request.slot is None else "1" for request in requests)


# -- slots


def test_at_first_every_slot_is_vacant() -> None:
    slots: Slots[str] = Slots(3)
    check_slots(slots)
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
    check_slots(slots)
    assert (slots.used, slots.idle) == (0, 1)
    assert slots.take_vacant() is None


def test_a_slot_without_a_connection_becomes_vacant() -> None:
    slots, (slot,) = all_taken()
    slot.connection = None
    slots.give_back(slot)
    check_slots(slots)
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
    check_slots(slots)
    assert slots.idle_slots() == (second,)


def test_a_slot_shows_its_number_and_its_connection() -> None:
    _, (slot,) = all_taken()
    assert repr(slot) == "<Slot 1: 'connection 1'>"


# -- the queue


def test_a_slot_goes_to_the_oldest_waiter_and_stays_taken() -> None:
    slots, (slot,) = all_taken()
    first, second = waiting(slots, 2)
    slots.give_back(slot)
    check_slots(slots)
    assert (first.slot, second.slot) == (slot, None)
    assert (slots.used, slots.idle, slots.waiting) == (1, 0, 1)


def test_an_emptied_slot_becomes_vacant_although_requests_wait() -> None:
    slots, (slot,) = all_taken()
    (request,) = waiting(slots, 1)
    slot.connection = None
    slots.give_back(slot)
    assert request.slot is None
    assert slots.take_vacant() is slot
    check_slots(slots, 1)  # the inventory opens a connection for the waiter
    slot.connection = "a new connection"
    slots.give_back(slot)
    check_slots(slots)
    assert request.slot is slot


def test_waiters_are_served_first_come_first_served() -> None:
    slots, (slot,) = all_taken()
    requests = waiting(slots, 5)
    for number in range(1, 6):
        slots.give_back(slot)
        check_slots(slots)
        assert served(requests) == "1" * number + "0" * (5 - number)


def test_a_cancelled_waiter_that_has_not_left_is_passed_over() -> None:
    slots, (slot,) = all_taken()
    cancelled, patient = waiting(slots, 2)
    cancelled.answer.cancelled = True
    slots.give_back(slot)
    check_slots(slots)
    assert patient.slot is slot
    assert slots.waiting == 0


def test_with_only_cancelled_waiters_the_slot_becomes_idle() -> None:
    slots, (slot,) = all_taken()
    for request in waiting(slots, 2):
        request.answer.cancelled = True
    slots.give_back(slot)
    check_slots(slots)
    assert (slots.idle, slots.waiting) == (1, 0)


def test_a_waiter_leaves_from_the_middle_of_the_queue() -> None:
    slots, (slot,) = all_taken()
    requests = waiting(slots, 3)
    slots.leave(requests[1])
    slots.leave(requests[1])  # harmless
    check_slots(slots)
    assert slots.queue() == (requests[0], requests[2])
    slots.give_back(slot)
    slots.give_back(slot)
    check_slots(slots)
    assert served(requests) == "101"
    assert slots.waiting == 0


def test_a_request_that_was_served_cannot_leave_any_more() -> None:
    slots, (slot,) = all_taken()
    first, patient = waiting(slots, 2)
    slots.give_back(slot)
    slots.leave(first)
    check_slots(slots)
    assert slots.queue() == (patient,)


@pytest.mark.parametrize("order", [1, -1])
def test_a_queue_that_every_request_leaves_is_empty_in_any_order(order: int) -> None:
    slots, (slot,) = all_taken()
    for request in waiting(slots, 9)[::order]:
        slots.leave(request)
        check_slots(slots)
    slots.give_back(slot)
    assert (slots.waiting, slots.idle) == (0, 1)


def test_a_request_that_queues_again_stands_before_those_that_asked_later() -> None:
    slots, (slot,) = all_taken()
    first = Request()
    second, third = waiting(slots, 2)
    slots.enqueue(first, again=True)
    assert slots.queue() == (first, second, third)
    assert slots.oldest is first
    slots.give_back(slot)
    check_slots(slots)
    assert served([first, second, third]) == "100"


def test_a_request_that_queues_again_in_an_empty_queue_is_the_only_one() -> None:
    slots, _ = all_taken()
    slots.enqueue(only := Request(), again=True)
    assert slots.queue() == (only,)


def test_the_oldest_waiter_is_the_one_at_the_front() -> None:
    slots, _ = all_taken()
    assert slots.oldest is None
    first, second = waiting(slots, 2)
    assert slots.oldest is first
    slots.leave(first)
    assert slots.oldest is second


def test_a_waiter_is_found_by_its_position() -> None:
    slots, _ = all_taken()
    requests = waiting(slots, 3)
    assert [slots.waiter(position) for position in range(3)] == requests


def test_the_queue_lists_the_waiters_oldest_first() -> None:
    slots, _ = all_taken()
    first, second, third = waiting(slots, 3)
    assert slots.queue() == (first, second, third)
    slots.leave(second)
    assert slots.queue() == (first, third)


# -- failures and deadlines


def test_a_failure_goes_to_the_oldest_waiter_only() -> None:
    slots, _ = all_taken()
    first, second = waiting(slots, 2)
    assert slots.fail_oldest(error := OSError("disk I/O error"))
    assert (first.answer.error, second.answer.error) == (error, None)
    assert slots.queue() == (second,)


def test_failures_empty_the_queue_oldest_first() -> None:
    slots, _ = all_taken()
    requests, errors = waiting(slots, 3), [OSError(), OSError(), OSError()]
    assert all(map(slots.fail_oldest, errors))
    assert [request.answer.error for request in requests] == errors
    assert slots.waiting == 0


def test_a_failure_passes_over_a_cancelled_waiter() -> None:
    slots, _ = all_taken()
    cancelled, patient = waiting(slots, 2)
    cancelled.answer.cancelled = True
    assert slots.fail_oldest(error := OSError("disk I/O error"))
    assert patient.answer.error is error
    assert slots.waiting == 0


def test_without_a_waiter_a_failure_goes_nowhere() -> None:
    slots, _ = all_taken()
    assert not slots.fail_oldest(OSError())
    waiting(slots, 1)[0].answer.cancelled = True
    assert not slots.fail_oldest(OSError())


def test_an_empty_queue_has_no_deadline() -> None:
    assert Slots[str](1).overdue(5) == ([], math.inf)


def test_requests_are_overdue_from_their_deadline_on() -> None:
    slots, _ = all_taken()
    requests = [queued(slots, deadline=deadline) for deadline in (1, 2, 3, 4)]
    assert slots.overdue(0.9) == ([], 1)
    assert slots.overdue(2) == (requests[:2], 3)
    assert slots.overdue(9) == (requests, math.inf)
    assert slots.queue() == tuple(requests), "an overdue request stays in the queue until it leaves"


class Unread(float):
    """A deadline that must not be compared."""

    def __lt__(self, other: float) -> bool:
        raise AssertionError("ten thousand waiters would be looked at for each that times out")

    __le__ = __lt__


def test_in_a_queue_in_order_nothing_behind_the_first_deadline_is_read() -> None:
    slots, _ = all_taken()
    late = queued(slots, deadline=1)
    queued(slots, deadline=3)
    queued(slots, deadline=Unread())
    assert slots.overdue(2) == ([late], 3)


def test_a_request_with_a_timeout_of_its_own_is_overdue_before_those_in_front_of_it() -> None:
    slots, _ = all_taken()
    queued(slots, deadline=30)
    hasty = queued(slots, deadline=5, timeout=1)
    queued(slots, deadline=31)
    assert slots.overdue(4) == ([], 5)
    assert slots.overdue(5) == ([hasty], 30)


def test_a_patient_request_does_not_hide_the_deadlines_behind_it() -> None:
    slots, _ = all_taken()
    queued(slots, timeout=math.inf)
    second, third = queued(slots, deadline=30), queued(slots, deadline=31)
    assert slots.overdue(29) == ([], 30)
    assert slots.overdue(30) == ([second], 31)
    assert slots.overdue(31) == ([second, third], math.inf)


@pytest.mark.parametrize("again", [True, False])
def test_a_request_with_a_timeout_of_its_own_is_overdue_also_when_it_came_first(again: bool) -> None:
    slots, _ = all_taken()
    slots.enqueue(patient := Request(deadline=60, timeout=60), again=again)
    behind = queued(slots, deadline=30)
    assert slots.overdue(45) == ([behind], 60)
    assert slots.overdue(60) == ([patient, behind], math.inf)


def test_a_queue_is_in_order_again_after_it_was_empty() -> None:
    slots, _ = all_taken()
    slots.leave(queued(slots, deadline=5, timeout=1))
    queued(slots, deadline=30)
    queued(slots, deadline=Unread())
    assert slots.overdue(4) == ([], 30)


# -- shared requests


def end(slots: Slots[str], slot: Slot[str], request: Request) -> None:
    """End the use of a slot that a request has, alone or with others."""
    if slots.part(slot, request):
        slots.give_back(slot)


def test_shared_requests_in_a_row_get_the_slot_together() -> None:
    slots, (slot,) = all_taken()
    requests = in_a_row(slots, "sss")
    slots.give_back(slot)
    check_slots(slots)
    assert served(requests) == "111"
    assert list(slot.sharing.requests) == requests
    assert (slots.waiting, slots.used) == (0, 1)


def test_a_shared_request_alone_may_be_joined_later() -> None:
    slots, (slot,) = all_taken()
    (alone,) = in_a_row(slots, "s")
    slots.give_back(slot)
    later = Request(shared=True)
    assert slots.join(later) is slot
    assert list(slot.sharing.requests) == [alone, later]


def test_an_exclusive_request_ends_the_row() -> None:
    slots, (slot,) = all_taken()
    requests = in_a_row(slots, "ssxss")
    slots.give_back(slot)
    check_slots(slots)
    assert served(requests) == "11000"
    assert slots.join(Request(shared=True)) is None, "it would overtake the exclusive request"
    end(slots, slot, requests[0])
    assert served(requests) == "11000"
    end(slots, slot, requests[1])
    check_slots(slots)
    assert served(requests) == "11100"
    assert not slot.sharing.requests
    end(slots, slot, requests[2])
    check_slots(slots)
    assert served(requests) == "11111"


def test_an_exclusive_request_at_the_front_gets_the_slot_alone() -> None:
    slots, (slot,) = all_taken()
    requests = in_a_row(slots, "xs")
    slots.give_back(slot)
    assert served(requests) == "10"
    assert (slot.sharing.requests, slots.join(Request(shared=True))) == ({}, None)


def test_cancelled_requests_do_not_end_the_row() -> None:
    slots, (slot,) = all_taken()
    requests = in_a_row(slots, "sxssx")
    requests[1].answer.cancelled = requests[2].answer.cancelled = True
    slots.give_back(slot)
    check_slots(slots)
    assert served(requests) == "10010"
    assert list(slot.sharing.requests) == [requests[0], requests[3]]


def test_any_number_of_requests_share_a_slot() -> None:
    slots, (slot,) = all_taken()
    requests = in_a_row(slots, "s" * 100)
    slots.give_back(slot)
    check_slots(slots)
    assert served(requests) == "1" * 100
    for _ in range(5):
        assert slots.join(Request(shared=True)) is slot
    assert len(slot.sharing.requests) == 105


def shared_by_two() -> tuple[Slots[str], Slot[str], Request, Request]:
    """Slots, the only one of them, and the two that share it."""
    slots, (slot,) = all_taken()
    first, second = Request(shared=True), Request(shared=True)
    slots.share(slot, first)
    slots.join(second)
    return slots, slot, first, second


def test_without_a_shared_slot_there_is_nothing_to_join() -> None:
    slots, _ = all_taken()
    assert slots.join(Request(shared=True)) is None


@pytest.mark.parametrize("kind", ["s", "x"])
def test_a_shared_slot_is_not_joined_while_a_request_waits(kind: str) -> None:
    slots, (slot,) = all_taken()
    slots.share(slot, Request(shared=True))
    (request,) = in_a_row(slots, kind)
    assert slots.join(Request(shared=True)) is None
    slots.leave(request)
    assert slots.join(Request(shared=True)) is slot


def test_a_shared_slot_is_not_joined_while_a_sharer_has_to_run_again() -> None:
    slots, slot, first, second = shared_by_two()
    slot.sharing.paused = first
    assert slots.join(Request(shared=True)) is None
    end(slots, slot, second)
    assert slots.join(Request(shared=True)) is None
    end(slots, slot, first)
    assert slots.idle == 1


def test_after_a_sharer_that_had_to_run_again_all_others_leave_before_any_joins() -> None:
    """Bug: what joined ran before those that were to queue again."""
    slots, slot, first, second = shared_by_two()
    slot.sharing.paused = first
    later = in_a_row(slots, "s")
    end(slots, slot, first)
    check_slots(slots)
    assert (served(later), slot.sharing.paused) == ("0", first)
    end(slots, slot, second)
    check_slots(slots)
    assert (served(later), slot.sharing.paused) == ("1", None)


def test_one_that_says_too_late_that_it_has_to_run_again_stops_no_others() -> None:
    """Bug: after a coroutine was closed in the middle of its function, which then found a lock, no function ran."""
    slots, (slot,) = all_taken()
    slots.share(slot, first := Request(shared=True))
    end(slots, slot, first)
    slot.sharing.paused = first
    (second,) = in_a_row(slots, "s")
    assert slots.take_idle() is slot
    slots.give_back(slot)
    assert (served([second]), slot.sharing.paused) == ("1", None)


def test_after_the_end_of_sharing_no_request_joins() -> None:
    slots, (slot,) = all_taken()
    first, second = in_a_row(slots, "ss")
    slots.give_back(slot)
    slots.end_sharing(slot)
    assert slots.join(Request(shared=True)) is None
    later = in_a_row(slots, "s")
    end(slots, slot, first)
    check_slots(slots)
    assert (served(later), list(slot.sharing.requests)) == ("0", [second])
    end(slots, slot, second)
    check_slots(slots)
    assert served(later) == "1"


def test_the_end_of_sharing_one_slot_is_not_the_end_for_another() -> None:
    slots, (first, second) = all_taken(2)
    slots.share(first, Request(shared=True))
    slots.share(second, Request(shared=True))
    slots.end_sharing(first)
    assert slots.join(Request(shared=True)) is second


def test_a_shared_slot_is_given_back_by_its_last_sharer() -> None:
    slots, slot, first, second = shared_by_two()
    assert not slots.part(slot, first)
    assert not slots.part(slot, first), "it has left already"
    check_slots(slots)
    assert (slots.idle, list(slot.sharing.requests)) == (0, [second])
    end(slots, slot, second)
    check_slots(slots)
    assert (slots.idle, slot.sharing.requests) == (1, {})
    assert slots.join(Request(shared=True)) is None


def test_an_emptied_shared_slot_becomes_vacant_with_its_last_sharer() -> None:
    slots, slot, first, second = shared_by_two()
    slot.connection = None
    slots.end_sharing(slot)
    end(slots, slot, first)
    assert slots.take_vacant() is None
    end(slots, slot, second)
    check_slots(slots)
    assert slots.take_vacant() is slot


# -- Ctrl-C


def lets_ctrl_c_in(code: CodeType) -> set[int]:
    """Return the offsets of the instructions before which CPython looks for signals.

    It does so at the beginning of a function, after each call, and when it jumps backward.
    """
    instructions = list(dis.get_instructions(code))
    return {
        after.offset
        for before, after in pairwise(instructions)
        if before.opname.startswith(("CALL", "RESUME")) or "JUMP_BACKWARD" in before.opname
    } | {jump.argval for jump in instructions if "JUMP_BACKWARD" in jump.opname}


def interrupts(opportunity: int, work: Callable[[], None]) -> bool:
    """Raise KeyboardInterrupt at the given one of the opportunities in the slots' code; False if there are fewer."""
    left = opportunity
    offsets: dict[CodeType, set[int]] = {}

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal left
        code = frame.f_code
        if code.co_filename != slots_module.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            if code not in offsets:
                offsets[code] = lets_ctrl_c_in(code)
            if frame.f_lasti in offsets[code]:
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # else Python 3.12 does not trace those of the first call
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("leaver", range(4))
def test_wherever_ctrl_c_falls_into_a_leave_the_others_are_served(leaver: int) -> None:
    for opportunity in count(1):
        slots, (slot,) = all_taken()
        requests = waiting(slots, 5)
        slots.leave(requests.pop(2))
        requests[leaver].answer.cancelled = True
        was_interrupted = interrupts(opportunity, partial(slots.leave, requests[leaver]))
        for request in requests:
            if not request.answer.cancelled:
                slots.give_back(slot)
                assert request.slot is slot
        slots.give_back(slot)
        check_slots(slots)
        assert (slots.waiting, slots.idle) == (0, 1)
        if not was_interrupted:
            break
    assert opportunity > 2


def histories(kinds: str, sharers: int) -> Iterator[tuple[Slots[str], Slot[str], list[Request], set[Request]]]:
    """Interrupt the end of a request wherever possible; the last are those that still have the slot from before.

    A kind in upper case is a waiter that was cancelled and has not left.
    """
    for opportunity in count(1):
        slots, (slot,) = all_taken()
        before = [Request(shared=sharers > 0) for _ in range(max(1, sharers))]
        for request in before[:sharers]:
            slots.share(slot, request)
        requests = in_a_row(slots, kinds.lower())
        for request, kind in zip(requests, kinds, strict=True):
            request.answer.cancelled = kind.isupper()
        was_interrupted = interrupts(opportunity, partial(end, slots, slot, before[0]))
        assert opportunity > 1 or was_interrupted
        has_left = before[0] not in slot.sharing.requests if sharers > 1 else slots.idle or "1" in served(requests)
        yield slots, slot, requests, {*before[1:], *([] if has_left else before[:1])}
        if not was_interrupted:
            assert has_left
            return


@pytest.mark.parametrize("sharers", [0, 1, 2, 3])
@pytest.mark.parametrize("kinds", ["", "X", "x", "xx", "Xx", "xX", "sx", "ss", "sSs", "SsXsx", "sxss", "ssssssssss"])
def test_wherever_ctrl_c_falls_into_the_end_of_a_use_the_slot_is_not_lost(kinds: str, sharers: int) -> None:
    for slots, slot, requests, have_it in histories(kinds, sharers):
        # It is in one place: still with those who had it, with waiters that were handed it, or idle.
        have_it |= {request for request in requests if request.slot is not None}
        assert (not have_it) == (slots.idle == 1)
        ended: set[Request] = set()
        while left := [request for request in have_it if request not in ended]:
            end(slots, slot, left[0])
            ended.add(left[0])
            have_it |= {request for request in requests if request.slot is not None}
        check_slots(slots)
        assert served(requests) == "".join("0" if kind.isupper() else "1" for kind in kinds)
        assert (slots.idle, slot.sharing.requests, slots.waiting) == (1, {}, 0)


# -- reading from other threads


class Changing(OrderedDict[Any, None]):
    """A queue that another thread changes just as it is about to be read, three times over."""

    changes = 3

    def __iter__(self) -> Any:
        iterator = super().__iter__()
        if self.changes:
            self.changes -= 1
            self[Request()] = None
        return iterator


def test_the_queue_can_be_read_while_another_thread_changes_it() -> None:
    slots, _ = all_taken()
    slots._queue = Changing()
    first = queued(slots)
    requests = slots.queue()
    assert requests[0] is first
    assert len(requests) == 4


def test_the_oldest_waiter_can_be_read_while_another_thread_changes_the_queue() -> None:
    slots, _ = all_taken()
    slots._queue = Changing()
    first = queued(slots)
    assert slots.oldest is first
    assert slots.waiting == 4


def test_another_thread_can_read_all_the_time() -> None:
    slots, (slot,) = all_taken()
    errors: list[BaseException] = []
    reads, stop = [0], threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                requests = slots.queue()
                assert len(requests) <= 60
                assert all(isinstance(request, Request) for request in (*requests, slots.oldest or Request()))
                assert 0 <= slots.waiting <= 60
                assert 0 <= slots.used <= 1
                reads[0] += 1
        except BaseException as error:
            errors.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    reader = threading.Thread(target=read)
    reader.start()
    try:
        while reads[0] < 300 and not errors:
            requests = waiting(slots, 60)
            slots.enqueue(requests[30], again=True)
            for request in requests[::2]:
                slots.leave(request)
            while slots.waiting:
                slots.give_back(slot)
    finally:
        stop.set()
        reader.join()
        sys.setswitchinterval(before)
    assert errors == []


# -- the check


def broken() -> list[tuple[str, Slots[str]]]:
    """Return slots in every state that the invariants forbid, and what `check` says about it."""
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
    shared, (slot,) = all_taken()
    shared.give_back(slot)
    shared.share(slot, Request(shared=True))
    needless: Slots[str] = Slots(1)
    waiting(needless, 1)
    too_few: Slots[str] = Slots(2)
    too_few.take_vacant()
    waiting(too_few, 2)
    return [
        ("idle twice", twice_idle),
        ("vacant twice", twice_vacant),
        ("idle and vacant", in_two_places),
        ("another pool", foreign),
        ("idle slot without", emptied),
        ("vacant slot with", filled),
        ("is shared", shared),
        ("a request waits", needless),
        ("a request waits", too_few),
    ]


@pytest.mark.parametrize(("complaint", "slots"), broken())
def test_the_check_finds_each_broken_invariant(complaint: str, slots: Slots[str]) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_slots(slots, len(slots.all) - 1)


def test_a_request_may_wait_beside_a_free_slot_while_a_connection_is_prepared_for_it() -> None:
    slots: Slots[str] = Slots(2)
    slots.take_vacant()
    waiting(slots, 1)
    check_slots(slots, 1)


def test_a_cancelled_waiter_does_not_count_as_waiting_for_the_check() -> None:
    slots: Slots[str] = Slots(1)
    waiting(slots, 1)[0].answer.cancelled = True
    check_slots(slots)
