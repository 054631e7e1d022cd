"""Runs servers that also listen on a port for the gateway SMG."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from support.server import ServerProcess, start_server


@dataclass(frozen=True)
class DoorServer:
    """A server, the address of its port for SMG, and a key for its main port, which is empty if no key is needed."""

    process: ServerProcess
    door: str
    key: str

    @property
    def target(self) -> str:
        return self.process.target


@contextmanager
def start_door(*flags: str, key: str = "", **variables: str) -> Iterator[DoorServer]:
    """Runs a server as `start_server` does, with a port for SMG on a free port of the loopback interface."""
    with start_server("--door", "smg", "--door-listen", "127.0.0.1:0", *flags, **variables) as server:
        yield DoorServer(server, str(server.wait_for("door_open")["address"]), key)
