"""The addresses and the gRPC channel options of a client."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import grpc
import grpc.aio

from doherty._version import __version__

DEFAULT_TARGET: Final = "localhost:50051"

Interceptor = (
    grpc.UnaryUnaryClientInterceptor
    | grpc.UnaryStreamClientInterceptor
    | grpc.StreamUnaryClientInterceptor
    | grpc.StreamStreamClientInterceptor
)

ChannelOptions = Mapping[str, str | int] | Sequence[tuple[str, str | int]]
"""Channel options by their names in gRPC, for example "grpc.max_send_message_length"."""

_IPV4: Final = re.compile(r"[0-9.]+")
_PORT: Final = re.compile(r":([0-9]+)(?=,|$)")
_MAX_PORT: Final = 65535


def choose_targets(target: str | Sequence[str] | None) -> tuple[str, ...]:
    """Returns the given targets; without any, those of the environment, or else the server on this machine.

    Args:
        target: One server, or several separated by commas, or a sequence of them, each as "host:port" or as a name that
            gRPC resolves ("dns:///host:port", "unix:/path").

    Raises:
        TypeError: A target is not a str.
        ValueError: There is no target, or gRPC cannot connect to one of them.
    """
    chosen = os.environ.get("DOHERTY_TARGET") or DEFAULT_TARGET if target in (None, "") else target
    targets = tuple(name.strip() for name in chosen.split(",")) if isinstance(chosen, str) else tuple(chosen or ())
    if not targets:
        # An empty list in a configuration means no server. It does not mean the default.
        raise ValueError("There is no target in the list.")
    for name in targets:
        if not isinstance(name, str):
            raise TypeError(f"A target is a str, not {type(name).__name__}.")
        if ":" not in name or name.startswith(("http:", "https:")):
            # gRPC would take port 443, or look for a host of that name.
            raise ValueError(f"The target {name!r} is not HOST:PORT.")
        is_path = name.startswith(("unix:", "unix-abstract:"))
        if not is_path and any(int(port) > _MAX_PORT for port in _PORT.findall(name)):
            # gRPC would connect to the port modulo 65536, and send the key there.
            raise ValueError(f"The target {name!r} has a port above {_MAX_PORT}.")
    if len(set(targets)) != len(targets):
        raise ValueError(f"A target is named twice: {', '.join(targets)}.")
    return targets


def is_loopback(target: str) -> bool:
    """Whether a target is on this machine, so that nothing sent to it leaves the machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    return all(map(_is_this_machine, _hosts(target)))


def _is_this_machine(host: str) -> bool:
    # RFC 6761: names under localhost mean this machine; case and a trailing dot do not matter.
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    import ipaddress  # noqa: PLC0415 - programs that use localhost do not need it

    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host.startswith("127.") and _IPV4.fullmatch(host) is not None  # 127.1 is an address, too
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def is_several(target: str) -> bool:
    """Whether a target may have several servers: if it is a DNS name or a list of addresses."""
    hosts = _hosts(target)
    return len(hosts) > 1 or not (is_loopback(target) or ":" in hosts[0] or _IPV4.fullmatch(hosts[0]))


def _hosts(target: str) -> list[str]:
    scheme, _, rest = target.partition(":")
    addresses = [target]
    if scheme in ("dns", "ipv4", "ipv6"):
        from urllib.parse import unquote  # noqa: PLC0415 - most programs name no scheme

        addresses = unquote(rest).rpartition("/")[2].split(",")
    return [re.sub(r":\d*$", "", address).strip("[]") for address in addresses]


CHANNEL_OPTIONS: Final[tuple[tuple[str, str | int], ...]] = (
    ("grpc.primary_user_agent", f"doherty-python/{__version__}"),
    # With 20 log probabilities per token, an answer of about 6,000 tokens exceeds gRPC's default of 4 MiB.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # Otherwise, gRPC's core would retry calls itself, and its attempts would count as the server's time.
    ("grpc.enable_retries", 0),
    # Detects within half a minute that a connection was lost silently during a long answer. An idle connection sends
    # no pings. Our server allows a ping every 5 s; a server with gRPC's default policy ends a call that is silent for
    # long with "too many pings".
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # The time for the response to a ping, by default a minute. The line above is about TCP acknowledgements.
    ("grpc.http2.ping_timeout_ms", 10_000),
    # gRPC's defaults are 1 s and 120 s: it could take minutes to reconnect to a restarted server.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Despite its name, this is the time to establish a connection. With the default of 20 s, calls would wait that
    # could go to another target.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # gRPC resolves a name again when a connection has ended, but not sooner than this after the last time. With the
    # default of 30 s, an added server would get no calls for that long.
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),
)

# Otherwise, gRPC uses the environment's proxy even for this machine, and the proxy can read the requests.
_THIS_MACHINE: Final = (("grpc.enable_http_proxy", 0),)

# Round robin over all addresses of a name whose health service reports SERVING.
_SEVERAL_SERVERS: Final = '{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""}}'

# The same, but weighted by the load that servers report with the status of each call.
_SEVERAL_WEIGHTED: Final = _SEVERAL_SERVERS.replace("round_robin", "weighted_round_robin")


def channel_options(
    target: str, *, weighted: bool = False, chosen: tuple[tuple[str, str | int], ...] = ()
) -> tuple[tuple[str, str | int], ...]:
    """Returns the options of the channel to a target.

    Args:
        target: The target.
        weighted: Whether several servers behind it get calls according to their load, instead of in turn.
        chosen: Options of the caller, which override ours of the same name.
    """
    here = _THIS_MACHINE if is_loopback(target) else ()
    config = _SEVERAL_WEIGHTED if weighted else _SEVERAL_SERVERS
    several = (("grpc.service_config", config),) if is_several(target) else ()
    names = {name for name, _ in chosen}
    ours = (*CHANNEL_OPTIONS, *here, *several)
    return (*(option for option in ours if option[0] not in names), *chosen)


def check_channel_options(options: ChannelOptions | None) -> tuple[tuple[str, str | int], ...]:
    """Checks the options of a caller. gRPC would fail only at the first call, without naming them.

    Raises:
        TypeError: They have a wrong type.
    """
    items: Any = options.items() if isinstance(options, Mapping) else options or ()
    pairs = tuple(map(tuple, items))
    for pair in pairs:
        if len(pair) != 2 or not isinstance(pair[0], str) or not isinstance(pair[1], str | int):  # noqa: PLR2004 - a pair
            raise TypeError(f"channel_options= has a str and a str or an int for each option, not {pair!r}.")
    return pairs


def check_interceptors(interceptors: Sequence[object], *, asynchronous: bool) -> tuple[object, ...]:
    """Checks interceptors. gRPC would fail only at the first call.

    Raises:
        TypeError: An interceptor is not of the kind that the client needs.
    """
    module, kinds = ("grpc.aio", grpc.aio.ClientInterceptor) if asynchronous else ("grpc", Interceptor)
    for interceptor in interceptors:
        if not isinstance(interceptor, kinds):
            raise TypeError(f"interceptors= has a {type(interceptor).__name__}: this client takes those of {module}.")
    return tuple(interceptors)
