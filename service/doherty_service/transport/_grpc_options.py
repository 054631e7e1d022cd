"""The options of gRPC's core: sizes, numbers and timeouts.

Their effects were tested with core 1.85. Some options that exist, or that other servers set, have no effect.
"""

from doherty_service.settings import Settings
from doherty_service.transport._file_limit import connections_to_accept

_METADATA_BYTES = 16 << 10
_HANDSHAKE_MS = 10_000
_MIN_DEALLOCATING = 256
_MAX_PENDING = 8_192
_FOREVER = 2**31 - 1
"""The value that core treats as no limit."""


def grpc_options(settings: Settings) -> list[tuple[str, int]]:
    """Returns the options of a server."""
    return [*_limits(settings), *_timeouts(settings)]


def _limits(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # Core's defaults are 8 kB, above which it refuses at random, and 16 kB, above which it always refuses.
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
        # Otherwise, if a caller starts and resets many calls, core starts all of them, and others wait for seconds.
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        # Core counts a call until it has freed it, which is later than the client stops counting it. It refuses calls
        # above the sum of both limits with UNAVAILABLE: with the default, up to a third of an honest burst.
        ("grpc.http2.max_deallocating_streams", max(settings.max_concurrent_streams, _MIN_DEALLOCATING)),
        # Calls that the event loop has not accepted yet, of about 25 kB each. Core's defaults are 1,000, above which it
        # cancels some at random, and 3,000, above which it cancels all, with CANCELLED and without a message.
        ("grpc.server.max_pending_requests", _MAX_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING),
        ("grpc.max_allowed_incoming_connections", connections_to_accept(settings.max_connections)),
        # Without this, two servers can share a port unnoticed, and each gets half of the calls.
        ("grpc.so_reuseport", 0),
        # Only "identity": compressed messages are refused with UNIMPLEMENTED. Older releases of core check the size of
        # a message only after decompressing it, so that 400 kB of gzip from a caller without a key could take 400 MB.
        ("grpc.compression_enabled_algorithms_bitset", 1),
    ]


def _timeouts(settings: Settings) -> list[tuple[str, int]]:
    return [
        # Clients may send pings during a call without traffic, such as a long unary call: by default, core answers with
        # GOAWAY ("too many pings"). The option with "recv" in its name, which other servers set, does not exist.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
        # Finds clients that disappeared or that stopped in the middle of a frame, and ends their requests. The timeout
        # for the reply to a ping is ping_timeout_ms (default: one minute); keepalive_timeout_ms is the time within
        # which TCP must acknowledge sent data.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # From the connection to its SETTINGS frame, including TLS. Core's default is two minutes.
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ("grpc.http2.settings_timeout", _HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", round(settings.idle_timeout * 1000)),
        *_age(settings),
    ]


def _age(settings: Settings) -> list[tuple[str, int]]:
    """After this time a connection accepts no more calls. Core adds a jitter of 10 %."""
    if not settings.max_connection_age:
        return []
    return [
        ("grpc.max_connection_age_ms", max(1, round(settings.max_connection_age * 1000))),
        # Running calls may continue without limit, because answers have none. This is also core's default.
        ("grpc.max_connection_age_grace_ms", _FOREVER),
    ]
