"""What is kept of the messages of a call that has ended."""

from typing import Any, cast

import pytest

from doherty_service.http2._incoming import Incoming
from doherty_service.http2._messages import PREFIX


class Link:
    """Counts the room in the windows that is given back."""

    def __init__(self) -> None:
        self.consumed = 0

    def consume(self, number: int, count: int) -> None:
        """Counts it."""
        del number
        self.consumed += count


@pytest.mark.parametrize("ends_first", [True, False])
def test_nothing_is_kept_of_an_unfinished_message(*, ends_first: bool) -> None:
    """The caller may keep its connection open, so the memory would not be freed."""
    link = Link()
    incoming = Incoming(cast("Any", link), 1, 1 << 20)
    part = PREFIX.pack(0, 1000) + bytes(500)
    if ends_first:
        incoming.cut()
        incoming.drop(part, is_last=False)
    else:
        incoming.receive(part, is_last=False)
        incoming.cut()
    assert link.consumed == len(part)
    assert not incoming._reader._buffer  # noqa: SLF001 - no public attribute shows it
