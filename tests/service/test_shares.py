"""The tree of shares: when the next request of a share starts."""

from doherty_service.admission._ticket import Share


def test_a_share_starts_at_the_current_virtual_time_if_it_lacks_no_slot() -> None:
    root = Share()
    busy = root.child("busy", 1.0)
    busy.charge(4.0, 1)
    busy.charge(4.0, 1)
    assert (root.now, busy.start) == (4.0, 8.0)
    # With both slots, it has more than its fair part: it gets no earlier start, and keeps its own.
    root.running = 2
    assert root.child("busy", 1.0, seconds=10.0).start == 8.0
    assert root.child("new", 1.0).start == 4.0


def test_a_share_starts_earlier_for_each_slot_that_it_lacks() -> None:
    root = Share()
    root.running, root.now = 4, 100.0
    root.child("other", 1.0)
    # Its fair part is two of four slots, and it has none.
    assert root.child("new", 1.0, seconds=10.0).start == 80.0


def test_a_released_slot_does_not_move_the_virtual_time() -> None:
    root = Share()
    child = root.child("key", 2.0)
    child.charge(6.0, 1)
    assert (root.now, child.start, child.running) == (0.0, 3.0, 1)
    child.charge(-2.0, -1)
    assert (root.now, child.start, child.running) == (0.0, 2.0, 0)
