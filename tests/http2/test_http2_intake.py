"""How much of what all connections send is handled in one turn of the event loop."""

import asyncio

from doherty_service.http2._frames import FrameTracker
from doherty_service.http2._intake import Intake
from support.conformance import opened
from support.http2 import PREFACE, reset

CONNECTIONS, PIECES = 16, 20
PIECE_BYTES, REQUESTS_IN_A_PIECE = 2 << 10, 10
FRAME_HEADER_BYTES = 9


def new_intake(max_requests: int = 3 * REQUESTS_IN_A_PIECE) -> Intake:
    return Intake(asyncio.get_running_loop(), max_requests, seconds=60)


class CountingConnection:
    """Begins requests with each piece."""

    def __init__(self, intake: Intake) -> None:
        self.closed: float | None = None
        self.is_paused = False
        self.is_in_line = False
        self.is_aborted = False
        self.received = 0
        self.requests = 0
        self.closes_after = self.fails_after = PIECES + 1
        """After how many pieces it is closed, or raises an exception."""
        self.handled: list[CountingConnection] = []
        """Gets this connection for each piece."""
        self._intake = intake

    def receive(self, data: bytes | memoryview, max_requests: int) -> int:
        """Counts the bytes and the requests. Handles only a part of a piece with more than `max_requests`."""
        pieces = self.received // PIECE_BYTES
        if pieces == self.fails_after:
            raise ValueError("a bug")
        begun = min(REQUESTS_IN_A_PIECE, max_requests)
        handled = len(data) * begun // REQUESTS_IN_A_PIECE
        self.received += handled
        self.handled.append(self)
        if pieces + 1 == self.closes_after:
            self.closed = 1.0
        for _ in range(begun):
            self.requests += 1
            self._intake.count_request()
        return handled

    def pause_reading(self) -> None:
        """Notes it."""
        self.is_paused = True

    def resume_reading(self) -> None:
        """Notes it."""
        self.is_paused = False

    def abort(self) -> None:
        """Notes it."""
        self.is_aborted = True


async def receive_all(max_requests: int) -> list[int]:
    """Returns how many requests begin in each turn if all connections send at the same time."""
    intake = new_intake(max_requests)
    connections = [CountingConnection(intake) for _ in range(CONNECTIONS)]
    for connection in connections:
        intake.take(connection, bytes(PIECES * PIECE_BYTES))
    begun = [sum(each.requests for each in connections)]
    while any(each.is_paused for each in connections):
        await asyncio.sleep(0)
        begun.append(sum(each.requests for each in connections))
    assert [each.received for each in connections] == [PIECES * PIECE_BYTES] * CONNECTIONS
    return [later - earlier for earlier, later in zip([0, *begun], begun, strict=False)]


def test_the_requests_of_all_connections_together_are_bounded_in_a_turn() -> None:
    assert max(asyncio.run(receive_all(25))) == 25


def test_received_bytes_are_cut_before_a_request_beyond_the_limit() -> None:
    two = PREFACE + opened(1) + reset(1) + opened(3) + reset(3)
    data = two + opened(5) + reset(5)
    for size in range(len(two), len(data) + 1):
        tracker = FrameTracker()
        handled = tracker.follow(data[:size], 2)
        assert handled == (size if size < len(two) + FRAME_HEADER_BYTES else len(two))
        assert tracker.follow(data[handled:], 1) == len(data) - handled
        assert not tracker.has_forbidden


async def settle(intake: Intake, *connections: CountingConnection) -> list[CountingConnection]:
    """Sends several pieces on each connection, and returns the connection of each piece in the order of handling."""
    handled: list[CountingConnection] = []
    for connection in connections:
        connection.handled = handled
        intake.take(connection, bytes(PIECES * PIECE_BYTES))
    while any(each.is_in_line for each in connections):  # noqa: ASYNC110 - nothing reports it
        await asyncio.sleep(0)
    return handled


async def test_connections_that_wait_take_turns() -> None:
    intake = new_intake()
    first, second, third = (CountingConnection(intake) for _ in range(3))
    handled = await settle(intake, first, second, third)
    begin = handled.index(third)
    assert handled[begin - 1 : begin + 5] == [second, third, first, second, third, first]


async def test_a_connection_that_closes_or_fails_does_not_stop_the_others() -> None:
    intake = new_intake()
    closing, failing, last = (CountingConnection(intake) for _ in range(3))
    closing.closes_after, failing.fails_after = 5, 5
    await settle(intake, closing, failing, last)
    assert [each.received // PIECE_BYTES for each in (closing, failing, last)] == [5, 5, PIECES]
    assert (closing.is_paused, failing.is_aborted, last.is_paused) == (True, True, False)


class UnresumedConnection(CountingConnection):
    """Cannot be resumed."""

    def resume_reading(self) -> None:
        raise RuntimeError("a bug of the event loop")


async def test_a_connection_that_cannot_be_resumed_does_not_stop_the_others() -> None:
    intake = new_intake()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))
    raised: list[BaseException] = []
    connections = [UnresumedConnection(intake), CountingConnection(intake)]
    await settle(intake, *connections)
    assert [each.received for each in connections] == [PIECES * PIECE_BYTES] * 2
    assert [str(error) for error in raised] == ["a bug of the event loop"]


class HandledConnection(CountingConnection):
    """Runs a handler for each piece, in the next turn of the event loop."""

    def __init__(self, intake: Intake, events: list[str]) -> None:
        super().__init__(intake)
        self._events = events

    def receive(self, data: bytes | memoryview, max_requests: int) -> int:
        self._events.append("receive")
        asyncio.get_running_loop().call_soon(self._events.append, "handler")
        return super().receive(data, max_requests)


async def test_the_handlers_of_a_turn_run_before_more_is_received() -> None:
    events: list[str] = []
    intake = new_intake(REQUESTS_IN_A_PIECE)
    await settle(intake, *(HandledConnection(intake, events) for _ in range(2)))
    await asyncio.sleep(0)
    assert events == ["receive", "handler"] * (2 * PIECES)
