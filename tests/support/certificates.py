"""Certificates for tests."""

from datetime import datetime
from pathlib import Path

import trustme


class Authority:
    """A certificate authority, and the files of the certificates that it issues to servers."""

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
        """Returns a new certificate and its key, in PEM."""
        leaf = self._ca.issue_cert("localhost", "127.0.0.1", common_name=name, not_before=begins, not_after=ends)
        return leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()

    def renew(self, name: str, *, begins: datetime | None = None, ends: datetime | None = None) -> None:
        """Replaces the old certificate with a new one, one file after the other, as renewal tools do."""
        issued = self.issue(name, begins=begins, ends=ends)
        for path, data in zip((self.chain, self.key), issued, strict=True):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(data)
            fresh.replace(path)

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of a server that uses this certificate."""
        return "--tls-cert", str(self.chain), "--tls-key", str(self.key)
