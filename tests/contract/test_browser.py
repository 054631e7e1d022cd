"""The site of the documents in Chromium: no page writes an error to the console."""

import re
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from support.browser import browser
from support.pages import ROOT

SITE = ROOT / ".cache" / "docs" / "site"
# Chromium's log has a line for every message that a script writes to the console, and for every error of a script.
OPTIONS = ("--enable-logging=stderr", "--log-level=0", "--virtual-time-budget=10000", "--dump-dom")

pytestmark = pytest.mark.browser


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without writing a log, and keeps the paths that do not exist."""

    missing: ClassVar[list[str]] = []

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002 - the library's
        if code == HTTPStatus.NOT_FOUND:
            self.missing.append(self.path)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature is the library's
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serves the site, and yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def look_at(url: str) -> tuple[str, list[str]]:
    """Returns the document of the page after its scripts have run, and the messages of its console."""
    done = subprocess.run([*browser("site"), *OPTIONS, url], capture_output=True, text=True, check=True)
    return done.stdout, re.findall(r":CONSOLE.*", done.stderr)


def test_errors_are_seen(address: str) -> None:
    """Without this, the next test could never fail."""
    _, messages = look_at("data:text/html,<script>console.error('told'); nothing()</script>")
    assert [message for message in messages if "told" in message or "nothing is not defined" in message] == messages
    assert len(messages) == 2
    look_at(f"{address}/no-such-page.html")
    assert "/no-such-page.html" in Quiet.missing


@pytest.mark.parametrize("page", sorted(str(path.relative_to(SITE)) for path in SITE.rglob("*.html")))
def test_no_page_has_an_error(page: str, address: str) -> None:
    Quiet.missing.clear()
    document, messages = look_at(f"{address}/{page}")
    assert messages == []
    assert Quiet.missing == []
    assert 'data-md-component="search"' in document
