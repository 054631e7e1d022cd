"""How a client connects to a target."""

from typing import Final

from doherty._core._addresses import is_loopback, is_several
from doherty._version import __version__

CHANNEL_OPTIONS: Final[tuple[tuple[str, str | int], ...]] = (
    ("grpc.primary_user_agent", f"doherty-python/{__version__}"),
    # An answer with 20 log probabilities a token is larger than gRPC's own 4 MiB from about 6,000 tokens on.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # Core would repeat a call behind our back, and its first try would count as the server's.
    ("grpc.enable_retries", 0),
    # Finds a connection that died without a word during a long answer, half a minute later. An idle connection sends
    # no pings. Our server allows a ping every 5 s; one with gRPC's default policy would end a call that is silent for
    # long with "too many pings".
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # The time for an answer to a ping, a minute by default; the line above is about acknowledgements by TCP.
    ("grpc.http2.ping_timeout_ms", 10_000),
    # Core's own are 1 s and 120 s: a server that was restarted would not be found again for minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # In spite of its name, how long a connection may take to come about: 20 s by default, for which the calls wait that
    # could go to another target.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # A name is resolved again when a connection has ended, but no sooner than this after the last time. Core's own are
    # 30 s, for which a server that was added gets no calls.
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),
)

# gRPC would ask the proxy of the environment for this machine too, and it would read what is meant for nobody else.
_THIS_MACHINE: Final = (("grpc.enable_http_proxy", 0),)

# In turn over all addresses behind a name, and only over those whose health service says that they serve.
_SEVERAL_SERVERS: Final = '{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""}}'


def channel_options(target: str) -> tuple[tuple[str, str | int], ...]:
    """The options of the channel to a target."""
    here = _THIS_MACHINE if is_loopback(target) else ()
    several = (("grpc.service_config", _SEVERAL_SERVERS),) if is_several(target) else ()
    return (*CHANNEL_OPTIONS, *here, *several)
