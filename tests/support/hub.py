"""A local hub that behaves as the client of Hugging Face expects: with one model, and optionally data sets."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "org/small-llama"


class Hub:
    """Its files, the requests that it received, and the failures that it simulates."""

    def __init__(self, model: Path, datasets: tuple[str, ...]) -> None:
        self.model = model
        self.datasets = datasets
        self.address = ""
        self.requested_files: list[tuple[str, str, str]] = []
        """The method, path and range of each request for a file."""
        self.stalls_in = ""
        """The name of a file of which only one half is sent; the connection then stalls."""
        self.stalled = threading.Event()
        self.goes_on = threading.Event()
        self.digests: dict[str, str] = {}
        """Attributes of files that are reported in place of the true ones."""
        self.requests = 0
        """The number of requests of all kinds."""
        self.fails = False
        """Whether every request is answered with an internal error."""

    def variables(self, home: Path) -> dict[str, str]:
        """Returns the environment variables of a process that uses this hub, and keeps downloads in `home`."""
        return {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def take_over(self, patch: pytest.MonkeyPatch, home: Path) -> None:
        """Makes this process use this hub, as `variables` does for other processes."""
        constants = import_module("huggingface_hub.constants")
        patch.setattr(constants, "ENDPOINT", self.address)
        patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{self.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)

    def siblings(self) -> list[dict[str, Any]]:
        return [self._sibling(path) for path in self._files()]

    def tree(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": self._name(path), "size": path.stat().st_size, "oid": "0" * 40}
            for path in self._files()
        ]

    def _files(self) -> list[Path]:
        return sorted(path for path in self.model.rglob("*") if path.is_file())

    def _name(self, path: Path) -> str:
        return path.relative_to(self.model).as_posix()

    def _sibling(self, path: Path) -> dict[str, Any]:
        entry: dict[str, Any] = {"rfilename": self._name(path), "size": path.stat().st_size}
        if path.suffix == ".safetensors":
            digest = self.digests.get(path.name) or hashlib.sha256(path.read_bytes()).hexdigest()
            entry["lfs"] = {"sha256": digest, "size": entry["size"], "pointerSize": 134}
        return entry


class _Server(ThreadingHTTPServer):
    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        if not isinstance(self.server, _Server):
            raise TypeError(f"not the hub's server: {self.server!r}")
        return self.server.hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        pass

    def _answer(self) -> None:
        hub, path = self.hub, unquote(self.path.partition("?")[0])
        hub.requests += 1
        dataset = path.removeprefix("/api/datasets/")
        file = hub.model / path.partition("/resolve/")[2].partition("/")[2]
        if hub.fails:
            self._json({"error": "Internal error"}, HTTPStatus.INTERNAL_SERVER_ERROR)
        elif path.startswith(f"/api/models/{MODEL}/tree"):
            self._json(hub.tree())
        elif path.startswith(f"/api/models/{MODEL}"):
            self._json({"id": MODEL, "sha": COMMIT, "siblings": hub.siblings()})
        elif dataset in hub.datasets:
            self._json({"id": dataset, "sha": COMMIT, "siblings": []})
        elif f"{MODEL}/resolve" in path and file.is_file():
            self._file(file)
        else:
            self._json({"error": "Repository not found"}, HTTPStatus.NOT_FOUND)

    def _json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status is HTTPStatus.NOT_FOUND:
            self.send_header("X-Error-Code", "RepoNotFound")
        self._send(json.dumps(value).encode())

    def _file(self, file: Path) -> None:
        requested = self.headers.get("Range", "")
        self.hub.requested_files.append((self.command, file.name, requested))
        body = file.read_bytes()
        begin = int(requested.removeprefix("bytes=").partition("-")[0] or 0) if requested else 0
        self.send_response(HTTPStatus.PARTIAL_CONTENT if begin else HTTPStatus.OK)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        self._send(body[begin:], stalls=file.name == self.hub.stalls_in)

    def _send(self, body: bytes, *, stalls: bool = False) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if stalls else body)
        if stalls:
            self.hub.stalled.set()
            self.hub.goes_on.wait()
            self.close_connection = True


@contextmanager
def running_hub(model: Path, *datasets: str) -> Iterator[Hub]:
    """Runs a hub with one model and some data sets."""
    hub = Hub(model, datasets)
    with _Server(hub) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.goes_on.set()
            server.shutdown()
            thread.join()
