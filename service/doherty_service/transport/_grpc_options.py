"""What gRPC's core is told: how large things may be, how many there may be, and how long it waits for whom.

What these do was tried out with core 1.85; some options that exist, or that others set, do nothing.
"""

from doherty_service.settings import Settings
from doherty_service.transport._connections import connections_to_accept

_METADATA_BYTES = 16 << 10
_HANDSHAKE_MS = 10_000
_LEAST_DEALLOCATING = 256
_MOST_PENDING = 8_192
_FOREVER = 2**31 - 1
"""What core takes as no limit."""


def grpc_options(settings: Settings) -> list[tuple[str, int]]:
    """The options of a server."""
    return [*_sizes_and_numbers(settings), *_patience(settings)]


def _sizes_and_numbers(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # Core's own are 8 kB, above which it refuses at random, and 16 kB, above which it always does.
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
        # Without this, a caller that begins and resets calls makes core start them all, and others wait for seconds.
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        # Core counts calls until it has tidied up behind them, later than clients do, and refuses with UNAVAILABLE what
        # is beyond the sum of both numbers: with its own here, up to a third of a burst of honest calls.
        ("grpc.http2.max_deallocating_streams", max(settings.max_concurrent_streams, _LEAST_DEALLOCATING)),
        # Calls that have come and that the event loop has not looked at, some 25 kB each. Core's own are 1,000, above
        # which it cancels some at random, and 3,000, above which all, with CANCELLED and nothing that says why.
        ("grpc.server.max_pending_requests", _MOST_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", _MOST_PENDING),
        ("grpc.max_allowed_incoming_connections", connections_to_accept(settings.max_connections)),
        # Without this, two servers share one port silently, and each gets half of the calls.
        ("grpc.so_reuseport", 0),
        # Only "identity": a compressed message is refused with UNIMPLEMENTED. Older releases of core check the size of
        # a message after they have decompressed it, so that 400 kB of gzip from a caller without a key take 400 MB.
        ("grpc.compression_enabled_algorithms_bitset", 1),
    ]


def _patience(settings: Settings) -> list[tuple[str, int]]:
    return [
        # A client may ping a call that is silent for long, as a unary one is: core's default answers with GOAWAY
        # ("too many pings"). The option with "recv" in its name that other servers set does not exist.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
        # Finds clients that are gone without a word, so that their requests end, and those that stop in the middle of
        # a frame. The time for an answer is the third of these, a minute by default; the second is how long what was
        # sent may go without an acknowledgement by TCP.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # From the connection to its SETTINGS, TLS included; core's own is two minutes.
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ("grpc.http2.settings_timeout", _HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", round(settings.idle_timeout * 1000)),
        *_age(settings),
    ]


def _age(settings: Settings) -> list[tuple[str, int]]:
    """When a connection takes no more calls. Core adds the jitter of 10 % itself."""
    if not settings.max_connection_age:
        return []
    return [
        ("grpc.max_connection_age_ms", max(1, round(settings.max_connection_age * 1000))),
        # How long the calls on it may go on: without a limit, because an answer has none. It is core's default.
        ("grpc.max_connection_age_grace_ms", _FOREVER),
    ]
