"""TLS with certificates that are read again when their files change."""

import asyncio
import logging
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc

from doherty_service.process import UnfitFileError, read_file
from doherty_service.security._validity import Validity, read_validity
from doherty_service.security._watch import FileWatch

_log = logging.getLogger("doherty.security")

_MOST_BYTES = 4 << 20
_DAY = 86_400.0
_SOON_DAYS = 14


class CertificateError(Exception):
    """The files of a certificate cannot be used; the message is a sentence that says why."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where the PEM files lie."""

    chain: Path
    """The server's certificate, and those between it and the root."""
    key: Path
    """Its private key, without a password."""
    client_ca: Path | None = None
    """The authorities that clients' certificates must be from; None asks clients for none."""


class Certificates:
    """The certificate that new connections get: follows its files, and keeps what it has while they are broken."""

    def __init__(self, files: CertificateFiles) -> None:
        """Reads the files, and logs if the certificate is not valid, or not for long.

        Raises:
            CertificateError: they cannot be used.
        """
        self._files = files
        self._watch = FileWatch([path for path in (files.chain, files.key, files.client_ca) if path])
        self._lock = threading.Lock()
        self._problem = ""
        self._first, self._validity = _read(files)
        self._fresh: grpc.ServerCertificateConfiguration | None = None
        """What was read and core does not have yet."""
        self._report()

    @property
    def expires(self) -> float:
        """When the first certificate of the chain expires, in seconds since 1970."""
        return self._validity.ends

    def credentials(self) -> grpc.ServerCredentials:
        """What gRPC asks for a certificate, before each handshake."""
        return grpc.dynamic_ssl_server_credentials(
            self._first,
            self._fetch,  # type: ignore[arg-type]  # the types forgot None, which gRPC documents
            require_client_authentication=self._files.client_ca is not None,
        )

    async def remind(self) -> None:
        """Logs once a day if the certificate is not valid, or not for long; runs until it is cancelled."""
        while True:
            await asyncio.sleep(_DAY)
            await asyncio.to_thread(self._follow)
            self._report()

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """What core asks in a thread of its own before each handshake: the new certificate, None for the old one."""
        self._follow()
        with self._lock:
            fresh, self._fresh = self._fresh, None
            return fresh

    def _follow(self) -> None:
        """Reads the files if they have changed."""
        with self._lock:
            if not self._watch.changed():
                return
            try:
                self._fresh, self._validity = _read(self._files)
            except CertificateError as error:
                if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, ssl.SSLError):
                    # Of rights, of a lack of file descriptors, ...: it can be mended while the files stay as they are.
                    self._watch.forget()
                    if str(error) == self._problem:
                        return
                self._problem = str(error)
                _log.error("certificate_not_read", extra={"fields": {"error": self._problem}})
                return
            self._problem = ""
            _log.info("certificate_read", extra={"fields": {"path": str(self._files.chain)}})
            self._report()

    def _report(self) -> None:
        now, (begins, ends) = time.time(), self._validity
        fields = {"path": str(self._files.chain), "begins": _day(begins), "expires": _day(ends)}
        if not begins <= now < ends:
            fields["error"] = "No client that checks it can connect."
            _log.error("certificate_not_valid", extra={"fields": fields})
        elif ends - now < _SOON_DAYS * _DAY:
            fields["days"] = f"{(ends - now) / _DAY:.1f}"
            _log.warning("certificate_expires_soon", extra={"fields": fields})


def _read(files: CertificateFiles) -> tuple[grpc.ServerCertificateConfiguration, Validity]:
    """Reads the files and makes sure that they fit together: core says it to its own log, and to every client.

    What is checked is what is read the moment before: files that change in between are read again at the next
    handshake, for the watch has the older state.
    """
    chain, key = _read_file(files.chain), _read_file(files.key)
    roots = _read_file(files.client_ca) if files.client_ca else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # The empty password keeps OpenSSL from asking for one at the terminal.
        context.load_cert_chain(files.chain, files.key, password="")
        validity = read_validity(chain)
    except (OSError, ValueError) as error:
        raise CertificateError(
            f"{files.chain} and {files.key} are not a certificate and its key in PEM: {_reason(error)}."
        ) from error
    if roots is not None:
        try:
            context.load_verify_locations(cadata=roots.decode("ascii"))
        except (OSError, ValueError) as error:
            raise CertificateError(f"{files.client_ca} has no certificates in PEM: {_reason(error)}.") from error
    return grpc.ssl_server_certificate_configuration([(key, chain)], roots), validity


def _read_file(path: Path) -> bytes:
    try:
        return read_file(path, _MOST_BYTES)
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}.") from error
    except UnfitFileError as error:
        raise CertificateError(f"{error}.") from None


def _reason(error: Exception) -> str:
    """In OpenSSL's words, without its line numbers."""
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return (reason or "they do not parse").replace("_", " ").lower()


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
