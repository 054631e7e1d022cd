"""The HTTP/2 library: ngh2, a binding of libnghttp2 that does no I/O. No other module knows it.

Another binding can take its place. It needs a session that takes received bytes, returns events and bytes to send, and
leaves it to us when received data count as consumed.
"""

from typing import Final

from ngh2 import (
    Configuration,
    DataReceived,
    DenialOfServiceError,
    GoAwayReceived,
    NGH2Error,
    PingAcknowledged,
    RequestReceived,
    Role,
    Setting,
    SettingsAcknowledged,
    StreamClosed,
)
from ngh2 import Connection as Session
from ngh2 import ConnectionClosed as SessionEnded
from ngh2 import TrailersReceived as RequestTrailersReceived

__all__ = [
    "CANCEL",
    "CONNECTION_WINDOW",
    "FLOOD_GOAWAY",
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "REFUSED_STREAM",
    "STREAM_WINDOW",
    "DataReceived",
    "FloodError",
    "GoAwayReceived",
    "PingAcknowledged",
    "RequestReceived",
    "RequestTrailersReceived",
    "Session",
    "SessionEnded",
    "SessionError",
    "SettingsAcknowledged",
    "StreamClosed",
    "new_session",
]

FloodError = DenialOfServiceError
"""Bytes after which there is no session, because they cost too much."""

SessionError = NGH2Error
"""A call that the state of the session or of a stream does not allow, or bytes after which there is no session."""

NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
"""Error codes of RST_STREAM and GOAWAY (RFC 9113, section 7)."""

FLOOD_GOAWAY: Final = b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\x0b"
"""A GOAWAY frame with ENHANCE_YOUR_CALM, which leaves open what calls were processed."""

STREAM_WINDOW: Final = 65_535
"""The bytes of a stream that a caller may send before we have read them: HTTP/2's default."""
CONNECTION_WINDOW: Final = 1 << 20
"""The same for all streams of a connection together."""

_CONFIGURATION = Configuration(
    auto_window_update=False,
    # A client may cancel all its calls at once, and many later. A call costs us some 0.1 ms.
    stream_reset_rate_limit=(2_000, 200),
    # Larger metadata than `METADATA_BYTES` are refused with a status; beyond this, the connection is closed.
    max_inbound_header_list_size=256 << 10,
    max_inbound_header_count=4_096,
    max_continuations=16,
)


def new_session(max_streams: int, max_metadata: int) -> Session:
    """Returns the server's end of a new connection, with its SETTINGS and its window queued.

    `max_streams` are the streams that a caller may have open, `max_metadata` the bytes of its metadata.
    """
    session = Session(Role.SERVER, _CONFIGURATION)
    session.initiate_connection(
        {Setting.MAX_CONCURRENT_STREAMS: max_streams, Setting.MAX_HEADER_LIST_SIZE: max_metadata}
    )
    session.set_local_window_size(CONNECTION_WINDOW)
    return session
