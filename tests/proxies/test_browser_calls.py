"""A page in Chromium calls the server with gRPC-Web, through Envoy with the file of deploy/."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.parse import quote

import pytest

from foreign.clients import HERE as FOREIGN
from foreign.clients import Json
from proxies.running import Envoy, running
from support.browser import browser
from support.certificates import Authority
from support.server import start_server
from support.wire import connect

pytestmark = pytest.mark.browser

GENERATION = "doherty.v1.GenerationService"
SHORT: Json = {"prompt": "a", "stopping": {"max_output_tokens": 4, "ignore_eos": True}}
ENDLESS: Json = {"prompt": "a", "stopping": {"max_output_tokens": 100_000, "ignore_eos": True}}
WRONG: Json = {"prompt": "a", "stopping": {"max_output_tokens": 0}}
SECONDS = 120


class Page(SimpleHTTPRequestHandler):
    """Serves the files of the page, and keeps what the page posts."""

    def __init__(self, *args: object, results: "Queue[list[Json]]", directory: str) -> None:
        self._results = results
        super().__init__(*args, directory=directory)  # type: ignore[arg-type]  # the server's own

    def do_POST(self) -> None:
        self._results.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature is the library's
        pass


@contextmanager
def serve_page(folder: Path) -> Iterator[tuple[str, "Queue[list[Json]]"]]:
    """Serves the page. Yields its origin and what it posts."""
    for name in ("web.html", "web_call.mjs"):
        shutil.copy(FOREIGN / "node" / name, folder)
    (folder / "node_modules").symlink_to(FOREIGN / "node" / "node_modules")
    shutil.copy(Envoy.path.parent / "doherty.binpb", folder)
    results: Queue[list[Json]] = Queue()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Page, results=results, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", results
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_page_generates_streams_and_cancels(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.renew("envoy")
    page = tmp_path / "page"
    page.mkdir()
    with (
        start_server("--engine", "synthetic", "-o", "context_tokens=1000000") as server,
        serve_page(page) as (origin, results),
        running(
            Envoy("envoy"), tmp_path, [server.target] * 2, authority, more={"https://app.example.com": origin}
        ) as envoy,
        connect(server.target) as caller,
    ):
        expected = caller.generate(**SHORT).text
        with connect(envoy.target, authority.roots) as through_envoy:
            through_envoy.generate(**SHORT)  # Envoy's health checks have succeeded
        calls: list[dict[str, Any]] = [
            {"method": "Generate", "request": SHORT},
            {"method": "StreamGenerate", "request": SHORT},
            {"method": "StreamGenerate", "request": ENDLESS, "cancelAfter": 3},
            {"method": "Generate", "request": WRONG},
        ]
        asked = json.dumps([{"url": f"https://{envoy.target}", "service": GENERATION, **call} for call in calls])
        # The browser does not know the authority of the test.
        command = [*browser("calls"), "--ignore-certificate-errors", f"{origin}/web.html#{quote(asked)}"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as chromium:
            try:
                unary, stream, cancelled, wrong = results.get(timeout=SECONDS)
            finally:
                chromium.kill()  # `unshare` ignores other signals
        assert (unary["code"], [answer["text"] for answer in unary["messages"]]) == (0, [expected])
        assert unary["trailers"]["server-timing"]
        texts = [part.get("delta", {}).get("text", "") for part in stream["messages"]]
        assert (stream["code"], "".join(texts)) == (0, expected)
        assert len(texts) > 1
        assert "summary" in stream["messages"][-1]
        assert (cancelled["code"], len(cancelled["messages"])) == (1, 3)
        caller.wait_until(lambda now: not now.running)
        assert wrong["code"] == 3
        details = {detail["type"]: detail for detail in wrong["details"]}
        assert details["google.rpc.BadRequest"]["fieldViolations"][0]["field"] == "stopping.max_output_tokens"
