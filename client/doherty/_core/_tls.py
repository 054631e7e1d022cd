"""The encryption of connections."""

import os
from dataclasses import dataclass
from pathlib import Path

import grpc

Pem = str | os.PathLike[str] | bytes
"""A path to a PEM file, or its content as bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSConfig:
    """The certificates for an encrypted connection.

    Files are read when a client is created.
    """

    ca: Pem | None = None
    """The certificates of the authorities that may have issued the server's certificate. The default is gRPC's list."""
    cert: Pem | None = None
    """The client's certificate chain, for servers that require one (mTLS)."""
    key: Pem | None = None
    """The private key of `cert`."""

    def __post_init__(self) -> None:
        if (self.cert is None) is not (self.key is None):
            raise ValueError("TLSConfig(cert=..., key=...): the two go together.")


def choose_credentials(
    *, tls: TLSConfig | bool | None, credentials: grpc.ChannelCredentials | None, ca: str | None
) -> grpc.ChannelCredentials | None:
    """Returns the caller's credentials, or those for `tls` or the environment; None for plaintext.

    Args:
        tls: The client's parameter.
        credentials: The caller's credentials, in place of `tls`.
        ca: The path of the trusted certificates, from the environment.

    Raises:
        OSError: A file cannot be read.
        TypeError: A parameter has a wrong type.
        ValueError: Both parameters are given.
    """
    if credentials is not None:
        if not isinstance(credentials, grpc.ChannelCredentials):
            raise TypeError(f"credentials= is a grpc.ChannelCredentials, not {type(credentials).__name__}.")
        if tls is not None:
            raise ValueError("tls= and credentials= exclude each other.")
        return None if _is_plaintext(credentials) else credentials
    if tls is None or tls is True:
        tls = TLSConfig(ca=ca)
    if not isinstance(tls, TLSConfig):
        raise TypeError(f"tls= is a bool or a TLSConfig, not {type(tls).__name__}.")
    return grpc.ssl_channel_credentials(_read(tls.ca), _read(tls.key), _read(tls.cert))


def _is_plaintext(credentials: grpc.ChannelCredentials) -> bool:
    """Whether these are grpc.experimental.insecure_channel_credentials(), which do not encrypt."""
    return type(vars(credentials).get("_credentials")).__name__ == "InsecureChannelCredentials"


def _read(pem: Pem | None) -> bytes | None:
    return pem if pem is None or isinstance(pem, bytes) else Path(pem).read_bytes()
