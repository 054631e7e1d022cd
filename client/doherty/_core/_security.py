"""Encryption, and the key that says who calls."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from doherty._core._addresses import is_loopback

if TYPE_CHECKING:
    import grpc

Pem = str | os.PathLike[str] | bytes
"""A path to a PEM file, or its content as bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSConfig:
    """How a connection is encrypted, and what the two sides prove to each other.

    Files are read when a client is made.
    """

    ca: Pem | None = None
    """The certificates that the server's must be signed by; by default those that gRPC trusts."""
    cert: Pem | None = None
    """The certificate chain that this side shows, where the server asks for one (mTLS)."""
    key: Pem | None = None
    """The private key of `cert`."""

    def __post_init__(self) -> None:
        if (self.cert is None) is not (self.key is None):
            raise ValueError("TLSConfig(cert=..., key=...): the two go together.")


def choose_tls(tls: TLSConfig | bool | None) -> TLSConfig | None:  # noqa: FBT001 - as the caller gave it
    """The encryption that was asked for, else that of the environment; None is none."""
    if tls is None and (ca := os.environ.get("DOHERTY_TLS_CA")):
        return TLSConfig(ca=ca)
    if isinstance(tls, TLSConfig):
        return tls
    if tls not in (True, False, None):
        raise TypeError(f"tls= is a bool or TLSConfig(...), not {type(tls).__name__}.")
    return TLSConfig() if tls else None


def credentials(tls: TLSConfig) -> "grpc.ChannelCredentials":
    """What gRPC encrypts a channel with.

    Raises:
        OSError: A file cannot be read.
    """
    import grpc  # noqa: PLC0415 - it is loaded by then

    return grpc.ssl_channel_credentials(_read(tls.ca), _read(tls.key), _read(tls.cert))


def _read(pem: Pem | None) -> bytes | None:
    return pem if pem is None or isinstance(pem, bytes) else Path(pem).read_bytes()


def choose_key(
    api_key: str | None, targets: Sequence[str], *, encrypted: bool, insecure: bool
) -> tuple[tuple[str, str], ...]:
    """The metadata that carries the key that was given, else that of the environment; none without a key.

    Raises:
        TypeError: The key is no text.
        ValueError: It cannot stand in a header, or would cross a network that anybody on the way can read.
    """
    key = os.environ.get("DOHERTY_API_KEY") if api_key is None else api_key
    if not key:
        return ()
    if not isinstance(key, str):
        raise TypeError(f"api_key= is a str, not {type(key).__name__}.")
    if not (key.isascii() and key.isprintable() and " " not in key):
        # The key itself stays out of the message, which may be logged.
        raise ValueError("The API key has characters that no key has, such as a line break at its end.")
    exposed = [target for target in targets if not is_loopback(target)]
    if exposed and not encrypted and not insecure:
        raise ValueError(
            f"The API key would go to {', '.join(exposed)} unencrypted. Use tls=True or TLSConfig(...); where the "
            "whole network in between is trusted, insecure=True."
        )
    return (("authorization", f"Bearer {key}"),)
