"""The fields of log lines that identify the server."""

import json
import socket

from doherty_service._version import server_version


class _Origin:
    """The fields at the beginning of every line, and their JSON."""

    def __init__(self) -> None:
        self.fields: dict[str, object] = {}
        self.json = ""
        self.name(socket.gethostname())

    def name(self, instance: str) -> None:
        """Sets the name of this server, which must be unique."""
        self.fields = {"instance": instance, "version": server_version()}
        self.json = json.dumps(self.fields)[1:-1]


origin = _Origin()


def name_instance(port: int) -> None:
    """Adds the port to the name, which distinguishes the servers of one host. Until then the name is the host's."""
    origin.name(f"{socket.gethostname()}:{port}")
