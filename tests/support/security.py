"""API keys for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from doherty_service.security import changing_keys, new_key
from support.wire import Caller


class _Details(NamedTuple):
    """The call details that an interceptor passes on."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Sends(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds metadata to every call."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._more(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._more(client_call_details), request)

    def _more(self, details: Any) -> _Details:
        return _Details(
            details.method,
            details.timeout,
            (*(details.metadata or ()), *self._metadata),
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Returns the metadata that contains a key."""
    return (("authorization", f"Bearer {token}"),)


@contextmanager
def connect_with(target: str, token: str, roots: bytes | None = None) -> Iterator[Caller]:
    """Opens a caller that sends a key with every call, and uses TLS if `roots` are given."""
    encrypted = roots and grpc.secure_channel(target, grpc.ssl_channel_credentials(roots))
    with encrypted or grpc.insecure_channel(target) as channel:
        yield Caller(grpc.intercept_channel(channel, _Sends(bearer(token))))


def add_key(
    path: Path,
    name: str,
    *,
    adapters: tuple[str, ...] | None = None,
    **settings: object,
) -> str:
    """Adds a key to a file of keys, and returns the whole of it; `settings` are fields of ApiKey."""
    key, token = new_key(name, {"adapters": adapters, **settings})
    with changing_keys(path) as keys:
        keys.append(key)
    return token
