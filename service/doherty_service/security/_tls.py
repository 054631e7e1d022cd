"""TLS with certificates that are reloaded when their files change."""

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

_MAX_BYTES = 4 << 20
_READ_SECONDS = 2.0
"""How long a handshake waits for the files; twice as long if they are already being read."""
_DAY = 86_400.0
_SOON_DAYS = 14


class CertificateError(Exception):
    """The files of a certificate cannot be used. The message is a sentence that says why."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """The paths of the PEM files."""

    chain: Path
    """The server's certificate and the intermediate certificates."""
    key: Path
    """The certificate's private key, without a password."""
    client_ca: Path | None = None
    """The authorities that must have issued clients' certificates; None means that clients need no certificate."""


class Certificates:
    """The certificate for new connections.

    It is reloaded when its files change. If that fails, the previous certificate stays in use.
    """

    def __init__(self, files: CertificateFiles) -> None:
        """Reads the files, and logs if the certificate is not valid or expires soon.

        Raises:
            CertificateError: The files cannot be used.
        """
        self._files = files
        self._watch = FileWatch([path for path in (files.chain, files.key, files.client_ca) if path])
        self._lock = threading.Lock()
        self._problem = ""
        self._initial, self._context, self._validity = _read(files)
        self._pending: grpc.ServerCertificateConfiguration | None = None
        """A reloaded certificate that gRPC's core has not fetched yet."""
        self._refreshing: asyncio.Future[None] | None = None
        """Ends when the files have been checked."""
        self._log_expiry()

    @property
    def expires(self) -> float:
        """When the first certificate of the chain expires, in seconds since 1970."""
        return self._validity.ends

    def credentials(self) -> grpc.ServerCredentials:
        """Returns credentials that ask for a new certificate before each handshake."""
        return grpc.dynamic_ssl_server_credentials(
            self._initial,
            self._fetch,  # type: ignore[arg-type]  # gRPC's documentation allows None, its types do not
            require_client_authentication=self._files.client_ca is not None,
        )

    async def current_context(self) -> ssl.SSLContext:
        """Returns the context for the next handshake of an HTTP/2 server.

        Files that have changed are read in a thread. If that takes long, the previous certificate is used meanwhile.
        """
        if self._refreshing is not None:  # it may have begun before the last change of a file
            await asyncio.wait((self._refreshing,), timeout=_READ_SECONDS)
        if self._refreshing is None:
            self._refreshing = asyncio.ensure_future(self._refresh_in_thread())
        await asyncio.wait((self._refreshing,), timeout=_READ_SECONDS)
        return self._context

    async def watch_expiry(self) -> None:
        """Logs once a day if the certificate is not valid or expires soon. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(_DAY)
            await asyncio.to_thread(self._refresh)
            self._log_expiry()

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns the new certificate, or None if it has not changed.

        gRPC's core calls this in its own thread before each handshake.
        """
        self._refresh()
        with self._lock:
            pending, self._pending = self._pending, None
            return pending

    async def _refresh_in_thread(self) -> None:
        try:
            await asyncio.to_thread(self._refresh)
        except (MemoryError, RuntimeError) as error:  # no thread could be started
            if str(error) != self._problem:
                self._log_problem(str(error))
        finally:
            self._refreshing = None

    def _refresh(self) -> None:
        """Reloads the files if they have changed."""
        with self._lock:
            if not self._watch.changed():
                return
            try:
                self._pending, self._context, self._validity = _read(self._files)
            except CertificateError as error:
                if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, ssl.SSLError):
                    # A later attempt may succeed although the files are unchanged, for example after a shortage of
                    # file descriptors.
                    self._watch.mark_changed()
                    if str(error) == self._problem:
                        return
                self._log_problem(str(error))
                return
            self._problem = ""
            _log.info("certificate_read", extra={"fields": {"path": str(self._files.chain)}})
            self._log_expiry()

    def _log_problem(self, problem: str) -> None:
        self._problem = problem
        _log.error("certificate_not_read", extra={"fields": {"error": problem}})

    def _log_expiry(self) -> None:
        now, (begins, ends) = time.time(), self._validity
        fields = {"path": str(self._files.chain), "begins": _day(begins), "expires": _day(ends)}
        if not begins <= now < ends:
            fields["error"] = "Clients that verify the certificate cannot connect."
            _log.error("certificate_not_valid", extra={"fields": fields})
        elif ends - now < _SOON_DAYS * _DAY:
            fields["days"] = f"{(ends - now) / _DAY:.1f}"
            _log.warning("certificate_expires_soon", extra={"fields": fields})


def _read(files: CertificateFiles) -> tuple[grpc.ServerCertificateConfiguration, ssl.SSLContext, Validity]:
    """Reads the files, for gRPC's core and for asyncio, and checks that certificate and key belong together.

    gRPC's core would report a mismatch only in its own log, and fail every handshake. The check below reads the files a
    second time. If they change in between, the next handshake reloads them, because the watch has the older state.
    """
    chain, key = _read_file(files.chain), _read_file(files.key)
    roots = _read_file(files.client_ca) if files.client_ca else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    context.num_tickets = 0  # a resumed session would keep what an old certificate allowed
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
        context.verify_mode = ssl.CERT_REQUIRED
    return grpc.ssl_server_certificate_configuration([(key, chain)], roots), context, validity


def _read_file(path: Path) -> bytes:
    try:
        return read_file(path, _MAX_BYTES)
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}.") from error
    except UnfitFileError as error:
        raise CertificateError(f"{error}.") from None


def _reason(error: Exception) -> str:
    """Returns OpenSSL's reason without its file names and line numbers."""
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return (reason or "they cannot be parsed").replace("_", " ").lower()


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
