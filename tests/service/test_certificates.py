"""The certificates of a server, tested without a server."""

import threading
from pathlib import Path

import pytest

from doherty_service.security import CertificateFiles, Certificates, _tls
from support.certificates import Authority


async def test_slowly_read_files_do_not_delay_handshakes_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    authority.renew("first")
    certificates = Certificates(CertificateFiles(authority.chain, authority.key))
    first = await certificates.current_context()
    read, readable = _tls._read_file, threading.Event()  # noqa: SLF001 - the test has no slow file system

    def read_slowly(path: Path) -> bytes:
        readable.wait()
        return read(path)

    monkeypatch.setattr(_tls, "_read_file", read_slowly)
    monkeypatch.setattr(_tls, "_READ_SECONDS", 0.01)
    authority.renew("second")
    try:
        assert await certificates.current_context() is first
        assert await certificates.current_context() is first
    finally:
        readable.set()  # otherwise, the thread would never end
    while await certificates.current_context() is first:
        pass
