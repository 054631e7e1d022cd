"""Runs real servers in processes of their own, on real sockets."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from support.transports import TRANSPORT_VARIABLE

_START_SECONDS = 60
_STOP_SECONDS = 1


class ServerProcess:
    """A running server: its address, its process and its log."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Reads the log of `process` until it ends."""
        self.process = process
        self.log: list[dict[str, object]] = []
        self.written: list[str] = []
        """The lines of the log as they were written."""
        self.target = ""
        self._lines: queue.Queue[dict[str, object] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, event: str, **fields: object) -> dict[str, object]:
        """Waits for a line of the log, which may have been read before. Fails if the server ends first."""
        for line in self.log:
            if _fits(line, event, fields):
                return line
        while (read := self._lines.get(timeout=_START_SECONDS)) is not None:
            self.log.append(read)
            if _fits(read, event, fields):
                return read
        raise AssertionError(f"the server ended before it logged {event} {fields}: {self.log}")

    def read(self) -> list[dict[str, object]]:
        """Returns the lines of the log that nobody has waited for yet, and discards them."""
        lines: list[dict[str, object]] = []
        while not self._lines.empty():
            if (line := self._lines.get()) is not None:
                lines.append(line)
        return lines

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal, waits for the end of the process, and returns the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Waits for the end of the process, and returns the exit code."""
        code = self.process.wait(_START_SECONDS)
        self._reader.join()
        if self.process.stderr is not None:
            self.process.stderr.close()
        return code

    def _read(self) -> None:
        if self.process.stderr is None:
            raise AssertionError("stderr of the server is not a pipe")
        for line in self.process.stderr:
            self.written.append(line)
            self._lines.put(json.loads(line) if line.startswith("{") else {"event": "text", "text": line})
        self._lines.put(None)


def _fits(line: dict[str, object], event: str, fields: dict[str, object]) -> bool:
    return line["event"] == event and all(line.get(name) == value for name, value in fields.items())


@contextmanager
def start_server(
    *flags: str, until: str = "ready", python: str = sys.executable, within: Sequence[str] = (), **variables: str
) -> Iterator[ServerProcess]:
    """Runs `doherty serve` on a free port of the loopback interface until the end of the block.

    The block begins when the server has logged the event `until`. `variables` are added to its environment, `python`
    is the interpreter, and `within` are the first words of a command that runs the remaining words elsewhere.
    """
    command = [*within, python, "-m", "doherty_service", "--listen", "127.0.0.1:0", *flags]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOHERTY_", "GRPC_", "OTEL_"))}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=kept | TRANSPORT_VARIABLE | variables)
    server = ServerProcess(process)
    try:
        server.target = str(server.wait_for("listening")["address"])
        server.wait_for(until)
        yield server
    finally:
        _end(process)
        server.wait()


def _end(process: subprocess.Popen[str]) -> None:
    """Ends a server with SIGTERM, so that it writes its coverage data; with SIGKILL if it is frozen or has calls."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
