"""Starts `doherty serve` in a separate process, and calls it."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from doherty import Client
from doherty_engine import Drafting, EngineSetupError

_STOP_SECONDS = 60
_CALL_SECONDS = 600.0
_FREE_SECONDS = 30.0
_POLL_SECONDS = 0.002


class Server:
    """A running server."""

    def __init__(self, client: Client, metrics: str) -> None:
        """`metrics` is the address of the server's metrics, as HOST:PORT."""
        self.client = client
        self._metrics = metrics

    def drafting(self) -> Drafting | None:
        """Returns the counters of speculative decoding from the metrics; None if the engine does not use it."""
        with urllib.request.urlopen(f"http://{self._metrics}/metrics", timeout=_CALL_SECONDS) as reply:
            families = list(text_string_to_metric_families(reply.read().decode()))
        samples = {
            (sample.name, sample.labels.get("position", "")): int(sample.value)
            for family in families
            for sample in family.samples
            if "draft" in sample.name
        }
        drafts = samples.get(("doherty_drafts_total", ""))
        if drafts is None:
            return None
        name = "doherty_accepted_draft_tokens_total"
        positions = sorted(int(position) for sample_name, position in samples if sample_name == name)
        accepted = tuple(samples[name, str(position)] for position in positions)
        return Drafting(drafts, samples["doherty_draft_tokens_total", ""], accepted)

    def seconds_until_free(self) -> float | None:
        """Waits until no request runs, and returns the waited seconds; None after 30 s."""
        start = time.monotonic()
        waited = 0.0
        while waited < _FREE_SECONDS:
            running = self.client.latency().running
            waited = time.monotonic() - start
            if not running:
                return waited
            time.sleep(_POLL_SECONDS)
        return None


@contextmanager
def serving(engine: str, options: Mapping[str, str], report: Callable[[str], None]) -> Iterator[Server]:
    """Runs `doherty serve` until the end of the block. If an engine has not been built yet, the server builds it first.

    Raises:
        EngineSetupError: The server cannot start. The message is the server's.
    """
    flags = [flag for key, value in options.items() for flag in ("--engine-option", f"{key}={value}")]
    listen = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
    command = [sys.executable, "-m", "doherty_service", "--engine", engine, *listen, *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DOHERTY_")}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:  # noqa: S603 - our own module
        try:
            address, metrics = _wait_until_ready(process, report)
            # Without retries and resumptions, which would hide failures.
            with Client(address, tls=False, timeout=_CALL_SECONDS, retry=None, resume=False) as client:
                yield Server(client, metrics)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:  # an engine's worker may hang
                process.kill()


def _wait_until_ready(process: "subprocess.Popen[str]", report: Callable[[str], None]) -> tuple[str, str]:
    """Reads the log until the server is ready; then a thread reads it. Returns the addresses of server and metrics."""
    if process.stderr is None:
        raise AssertionError("standard error is a pipe")
    message = metrics = ""
    for text in process.stderr:
        line = _read(text)
        if line.get("event") == "loading":
            report(str(line.get("doing")))
        elif line.get("event") == "metrics":
            metrics = str(line["address"])
        elif line.get("event") == "ready":
            threading.Thread(target=_forward_other_lines, args=(process.stderr,), daemon=True).start()
            return str(line["address"]), metrics
        elif not line:
            sys.stderr.write(text)
            message = text.strip() or message
    raise EngineSetupError(message or "The server ended before it was ready.")


def _forward_other_lines(log: Any) -> None:
    """Prints the lines that are not Doherty's log lines, because they are the engine's and may be of interest."""
    for text in log:
        if not _read(text):
            sys.stderr.write(text)


def _read(text: str) -> dict[str, object]:
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}
