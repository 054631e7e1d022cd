"""TLS with certificates that are read again when their files change."""

import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc

from doherty_service.security._watch import FileWatch

_log = logging.getLogger("doherty.security")


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


class _Certificates:
    """The certificate that new connections get."""

    def __init__(self, files: CertificateFiles) -> None:
        """Reads the files.

        Raises:
            CertificateError: they cannot be used.
        """
        self._files = files
        self._watch = FileWatch([path for path in (files.chain, files.key, files.client_ca) if path])
        self._lock = threading.Lock()
        self._problem = ""
        self.first = _read(files)

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """What core asks in a thread of its own before each handshake: the new certificate, None for the old one."""
        with self._lock:
            if not self._watch.changed():
                return None
            try:
                fresh = _read(self._files)
            except CertificateError as error:
                if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, ssl.SSLError):
                    # Of rights, of a lack of file descriptors, ...: it can be mended while the files stay as they are.
                    self._watch.forget()
                    if str(error) == self._problem:
                        return None
                self._problem = str(error)
                _log.error("certificate_not_read", extra={"fields": {"error": self._problem}})
                return None
            self._problem = ""
            _log.info("certificate_read", extra={"fields": {"path": str(self._files.chain)}})
            return fresh


def tls_credentials(files: CertificateFiles) -> grpc.ServerCredentials:
    """Makes credentials that follow their files; while these are broken, the last good certificate stays.

    Raises:
        CertificateError: the files cannot be used now.
    """
    certificates = _Certificates(files)
    return grpc.dynamic_ssl_server_credentials(
        certificates.first,
        certificates.fetch,  # type: ignore[arg-type]  # the types forgot None, which gRPC documents
        require_client_authentication=files.client_ca is not None,
    )


def _read(files: CertificateFiles) -> grpc.ServerCertificateConfiguration:
    """Reads the files and makes sure that they fit together: core says it to its own log, and to every client.

    What is checked is what is read the moment before: files that change in between are read again at the next
    handshake, for the watch has the older state.
    """
    try:
        chain, key = files.chain.read_bytes(), files.key.read_bytes()
        roots = files.client_ca.read_bytes() if files.client_ca else None
    except OSError as error:
        raise CertificateError(f"{error.filename} cannot be read: {error.strerror}.") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # The empty password keeps OpenSSL from asking for one at the terminal.
        context.load_cert_chain(files.chain, files.key, password="")
    except (OSError, ValueError) as error:
        raise CertificateError(
            f"{files.chain} and {files.key} are not a certificate and its key in PEM: {_reason(error)}."
        ) from error
    if roots is not None:
        try:
            context.load_verify_locations(cadata=roots.decode("ascii"))
        except (OSError, ValueError) as error:
            raise CertificateError(f"{files.client_ca} has no certificates in PEM: {_reason(error)}.") from error
    return grpc.ssl_server_certificate_configuration([(key, chain)], roots)


def _reason(error: Exception) -> str:
    """In OpenSSL's words, without its line numbers."""
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return (reason or "they do not parse").replace("_", " ").lower()
