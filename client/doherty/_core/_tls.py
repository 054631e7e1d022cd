"""How connections are encrypted."""

import os
from dataclasses import dataclass
from pathlib import Path

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


def channel_credentials(tls: TLSConfig) -> grpc.ChannelCredentials:
    """What gRPC encrypts a channel with.

    Raises:
        OSError: A file cannot be read.
    """
    return grpc.ssl_channel_credentials(_read(tls.ca), _read(tls.key), _read(tls.cert))


def _read(pem: Pem | None) -> bytes | None:
    return pem if pem is None or isinstance(pem, bytes) else Path(pem).read_bytes()
