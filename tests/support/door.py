"""Servers with a door for SMG."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from support.server import ServerProcess, start_server


@dataclass(frozen=True)
class DoorServer:
    """A server, the address of its door, and a key to its own port; empty where it asks for none."""

    process: ServerProcess
    door: str
    key: str

    @property
    def target(self) -> str:
        return self.process.target


@contextmanager
def start_door(*flags: str, key: str = "", **variables: str) -> Iterator[DoorServer]:
    """Runs a server as `start_server` does, with a door on a free port of loopback."""
    with start_server("--door", "smg", "--door-listen", "127.0.0.1:0", *flags, **variables) as server:
        yield DoorServer(server, str(server.wait_for("door_open")["address"]), key)
