"""Which server a line of the log is from."""

import json
import socket

from doherty_service._version import server_version


class _Origin:
    """The fields that every line begins with, and their JSON."""

    def __init__(self) -> None:
        self.fields: dict[str, object] = {}
        self.json = ""
        self.name(socket.gethostname())

    def name(self, instance: str) -> None:
        """Gives this server a name that no other one has."""
        self.fields = {"instance": instance, "version": server_version()}
        self.json = json.dumps(self.fields)[1:-1]


origin = _Origin()


def name_instance(port: int) -> None:
    """Tells servers of one host apart by their ports; until then the host is all that is known."""
    origin.name(f"{socket.gethostname()}:{port}")
