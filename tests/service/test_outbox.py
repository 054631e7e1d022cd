"""How the parts of many answers are packed into the messages of a MultiplexGenerate."""

from typing import Any, cast

from doherty_service.multiplex._outbox import Outbox

LARGE = b"x" * 700_000
"""Two of them do not fit into one message."""


class Lane:
    """A lane with parts that are ready."""

    def __init__(self, *parts: bytes) -> None:
        self.in_outbox = False
        self.status = ""
        self._parts = list(parts)

    @property
    def has_part(self) -> bool:
        """Whether there is something to send."""
        return bool(self._parts)

    def take_part(self) -> bytes:
        """Returns the next part; the last one has a status."""
        part = self._parts.pop(0)
        self.status = "" if self._parts else "OK"
        return part


def pack_all(*lanes: Lane) -> tuple[list[bytes], list[Any]]:
    """Returns all messages, and the lanes that ended."""
    outbox = Outbox()
    for lane in lanes:
        outbox.add(cast("Any", lane))
    messages: list[bytes] = []
    while message := outbox.pack():
        messages.append(message)
    return messages, outbox.ending


def test_a_message_has_one_part_of_each_lane() -> None:
    first, second = Lane(b"a", b"b", b"c"), Lane(b"1")
    assert pack_all(first, second) == ([b"a1", b"b", b"c"], [second, first])


def test_a_part_that_does_not_fit_comes_first_in_the_next_message() -> None:
    first, second, third = Lane(LARGE), Lane(LARGE), Lane(b"end")
    assert pack_all(first, second, third) == ([LARGE, LARGE + b"end"], [first, second, third])


def test_a_lane_whose_part_was_postponed_sends_the_rest() -> None:
    first, second = Lane(LARGE), Lane(LARGE, b"more", b"end")
    assert pack_all(first, second) == ([LARGE, LARGE, b"more", b"end"], [first, second])
