"""Finds out why a call did not reach a server.

gRPC's core and proxies report the reason only in the status message. The texts here are from grpcio 1.71 to 1.85.
"""

import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

import grpc

from doherty._core._obstacle import Obstacle

if TYPE_CHECKING:
    from doherty._core._status import Status

_NOT_CONNECTED: Final = re.compile(
    # gRPC's load balancers and name resolver
    r"failed to connect to all addresses|connections to all backends failing|empty address list|errors resolving|"
    r"DNS resolution failed|"
    # a proxy without a server, or a platform that is starting one
    r"Received http2 header with status: 50[23]|no healthy upstream|"
    r"upstream connect error.*connection (?:failure|timeout)",
    re.DOTALL,
)

_WRONG_NAME: Final = re.compile(r"Hostname Verification Check failed|is not in peer certificate")

_BAD_CERTIFICATE: Final = re.compile(r"CERTIFICATE_VERIFY_FAILED(?:: (?P<why>[^:]+))?")

_ENDED_BY_SERVER: Final = re.compile(
    r"ipv[46]:(?P<address>\S+): .*(?:Socket closed|Connection reset|Broken pipe|Failed parsing HTTP/2|http1)"
)

_STARTING: Final = frozenset({"WARMING_UP", "DRAINING", "ENGINE_RESTARTING"})
"""The error reasons of a server that is starting or being replaced."""

_SIGNS: Final = (
    (Obstacle.UNKNOWN_NAME, re.compile(r"Domain name not found|Name or service not known|nodename nor servname")),
    (Obstacle.CERTIFICATE_NOT_TRUSTED, _BAD_CERTIFICATE),
    (Obstacle.CERTIFICATE_NOT_TRUSTED, _WRONG_NAME),
    # BoringSSL's error for a response that is not TLS
    (Obstacle.TLS_NOT_SPOKEN, re.compile("WRONG_VERSION_NUMBER")),
)


class Address(NamedTuple):
    """An IP address and a port."""

    host: str
    port: int


def find_obstacle(status: "Status", *, encrypted: bool) -> Obstacle | None:
    """Returns why a call did not reach a server; None if it may have reached one.

    Args:
        status: The status of the call.
        encrypted: Whether the client uses TLS.
    """
    text = status.message
    if status.code is not grpc.StatusCode.UNAVAILABLE:
        return None
    if status.answered:
        return Obstacle.NOT_READY if status.reason in _STARTING else None
    if not _NOT_CONNECTED.search(text):
        return None
    return next((obstacle for obstacle, sign in _SIGNS if sign.search(text)), None) or (
        Obstacle.CONNECTION_ENDED if encrypted and _ENDED_BY_SERVER.search(text) else Obstacle.NOT_READY
    )


def address_of_silent_server(status: "Status") -> Address | None:
    """Returns the address of a server that closed a new connection, as one with TLS does to a plaintext client."""
    match = _ENDED_BY_SERVER.search(status.message)
    host, _, port = unquote(match["address"]).rpartition(":") if match else ("", "", "")
    return Address(host.strip("[]"), int(port)) if port.isdecimal() else None


def certificate_advice(text: str) -> str:
    """Describes what is wrong with a certificate according to gRPC, and what to do."""
    if _WRONG_NAME.search(text):
        return "is for another name; connect by a name that it has"
    match = _BAD_CERTIFICATE.search(text)
    why = ((match and match["why"]) or "no reason given").strip()
    if "expired" in why:
        return "has expired; its owner must renew it"
    if "not yet valid" in why:
        return "is not valid yet; check the clocks of both machines"
    return f"is not trusted ({why}); set its authority with TLSConfig(ca=...), DOHERTY_TLS_CA or --tls-ca"
