"""Keys and certificates for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import trustme

from doherty_service.security import changing_keys, new_key
from support.wire import Caller


class _Details(NamedTuple):
    """What an interceptor hands on."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Sends(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Sends metadata along with every call."""

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
    """The metadata that shows a key."""
    return (("authorization", f"Bearer {token}"),)


@contextmanager
def connect_with(target: str, token: str, roots: bytes | None = None) -> Iterator[Caller]:
    """A caller who shows a key with every call, and encrypts if it has an authority to trust."""
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


class Authority:
    """An authority and the files of the certificates that it gives to servers."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.roots = self._ca.cert_pem.bytes()
        self.roots_file = folder / "ca.pem"
        self.roots_file.write_bytes(self.roots)
        self.chain = folder / "server.pem"
        self.key = folder / "server.key"

    def issue(
        self, name: str = "client", *, begins: datetime | None = None, ends: datetime | None = None
    ) -> tuple[bytes, bytes]:
        """A new certificate and its key, in PEM."""
        leaf = self._ca.issue_cert("localhost", "127.0.0.1", common_name=name, not_before=begins, not_after=ends)
        return leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()

    def renew(self, name: str, *, begins: datetime | None = None, ends: datetime | None = None) -> None:
        """Puts a new certificate in the place of the old one, file by file, as tools for that do."""
        issued = self.issue(name, begins=begins, ends=ends)
        for path, data in zip((self.chain, self.key), issued, strict=True):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(data)
            fresh.replace(path)

    @property
    def flags(self) -> tuple[str, ...]:
        """Those of a server with the certificate."""
        return "--tls-cert", str(self.chain), "--tls-key", str(self.key)
