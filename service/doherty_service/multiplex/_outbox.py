"""Packs what the lanes of a MultiplexGenerate send into shared messages."""

from collections import deque
from typing import NamedTuple

from doherty_service.multiplex._lane import Lane

_MAX_MESSAGE_BYTES = 1 << 20
"""Parts are packed into messages of at most this size, which any caller accepts. A larger part is sent alone."""


class _Part(NamedTuple):
    lane: Lane
    message: bytes
    is_last: bool


class Outbox:
    """The lanes that have something to send, in order."""

    def __init__(self) -> None:
        self.lanes: deque[Lane] = deque()
        """Each lane once: `Lane.in_outbox` is set for those in it."""
        self.ending: list[Lane] = []
        """Lanes whose last part was packed. The RPC closes them when the message is sent."""
        self.postponed: _Part | None = None
        """A part that did not fit into the previous message."""

    def add(self, lane: Lane) -> None:
        """Appends a lane, unless it is in the outbox."""
        if not lane.in_outbox:
            lane.in_outbox = True
            self.lanes.append(lane)

    def pack(self) -> bytes:
        """Returns the next message. It has at most one part of each lane; lanes with more to send line up again."""
        again: list[Lane] = []
        postponed, self.postponed = self.postponed, None
        parts = [] if postponed is None else [self._take_postponed(postponed)]
        size = sum(map(len, parts))
        while self.lanes:
            lane = self.lanes.popleft()
            lane.in_outbox = False
            if postponed is not None and lane is postponed.lane:
                again.append(lane)
                continue
            try:
                message = lane.take_part()
            except Exception as error:  # noqa: BLE001 - an error in one answer must not stop the others; it is logged
                lane.fail_now(error)
                message = lane.take_part()
            is_last = bool(lane.status)
            if message:
                size += len(message)
                if parts and size > _MAX_MESSAGE_BYTES:
                    self.postponed = _Part(lane, message, is_last)
                    break
                parts.append(message)
            if is_last:
                self.ending.append(lane)
            elif lane.has_part:
                again.append(lane)
        for lane in again:
            self.add(lane)
        return b"".join(parts)

    def _take_postponed(self, part: _Part) -> bytes:
        """Returns the message of a part; its lane lines up again if there is more."""
        if part.is_last:
            self.ending.append(part.lane)
        elif part.lane.has_part:
            self.add(part.lane)
        return part.message
