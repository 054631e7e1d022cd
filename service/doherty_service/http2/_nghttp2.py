"""The HTTP/2 library: ngh2, a binding of libnghttp2 that does no I/O. No other module knows it.

Another binding can take its place. It needs a session that takes received bytes, returns events and bytes to send, and
leaves it to us when received data count as consumed.
"""

from typing import Final

from ngh2 import (
    Configuration,
    DataReceived,
    DenialOfServiceError,
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
    "NO_ERROR",
    "STREAM_WINDOW",
    "DataReceived",
    "FloodError",
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
CANCEL: Final = 8
"""Error codes of RST_STREAM and GOAWAY (RFC 9113, section 7)."""

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


def new_session(most_streams: int, most_metadata: int) -> Session:
    """Returns the server's end of a new connection, with its SETTINGS and its window queued.

    `most_streams` are the streams that a caller may have open, `most_metadata` the bytes of its metadata.
    """
    session = Session(Role.SERVER, _CONFIGURATION)
    session.initiate_connection(
        {Setting.MAX_CONCURRENT_STREAMS: most_streams, Setting.MAX_HEADER_LIST_SIZE: most_metadata}
    )
    session.set_local_window_size(CONNECTION_WINDOW)
    return session
