"""What the machine says about a piece of work."""

from __future__ import annotations

from aiosqlitepool.driver.machine import Machine


def test_how_often_the_system_has_taken_the_processor_is_counted() -> None:
    before = Machine().preemptions()
    sum(range(10_000_000))
    assert 0 <= before <= Machine().preemptions()


def test_what_the_process_reads_from_a_disk_is_counted() -> None:
    assert 0 <= Machine().disk_reads() <= Machine().disk_reads()
