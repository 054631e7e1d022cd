"""Three clients that we did not write, behind one interface: grpcurl, `buf curl` and Node's grpc-js.

Their JSON has the names of the contract (`request_id`), as grpcurl prints them; buf prints `requestId`.
"""

import json
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from google.rpc import status_pb2

SCRIPTS = Path(sysconfig.get_path("scripts"))
HERE = Path(__file__).parent
# The folders of the proto files: ours, and those of googleapis-common-protos.
INCLUDES = [str(HERE.parents[1] / "proto"), str(Path(status_pb2.__file__).parents[2])]

Json = dict[str, Any]


class ForeignClient(Protocol):
    """The functions of each client. The full name of a method is "doherty.v1.GenerationService/Generate"."""

    def services(self, target: str) -> set[str]:
        """Returns the services that the server lists."""
        ...

    def methods(self, target: str, service: str) -> set[str]:
        """Returns the names of the methods of a service, as described by the server."""
        ...

    def call(self, target: str, method: str, request: Json) -> list[Json]:
        """Returns the received messages as JSON. Raises an error if the status is not OK."""
        ...


class Grpcurl:
    """The common command-line client in version 1.8.6, which uses reflection v1alpha."""

    def services(self, target: str) -> set[str]:
        return set(self.run(target, "list").split())

    def methods(self, target: str, service: str) -> set[str]:
        return {name.removeprefix(f"{service}.") for name in self.run(target, "list", service).split()}

    def call(self, target: str, method: str, request: Json) -> list[Json]:
        return list(documents(self.run("-d", json.dumps(request), target, method)))

    @staticmethod
    def run(*arguments: str) -> str:
        """Runs grpcurl, and returns its output."""
        return output(SCRIPTS / "grpcurl", "-plaintext", *arguments)


class BufCurl:
    """Buf's client, which is based on the Go library connect, and uses reflection v1."""

    def services(self, target: str) -> set[str]:
        return set(self.run("--list-services", f"http://{target}").split())

    def methods(self, target: str, service: str) -> set[str]:
        listed = (name.split("/") for name in self.run("--list-methods", f"http://{target}").split())
        return {method for owner, method in listed if owner == service}

    def call(self, target: str, method: str, request: Json) -> list[Json]:
        return list(documents(self.run("--data", json.dumps(request), f"http://{target}/{method}")))

    @staticmethod
    def run(*arguments: str) -> str:
        """Runs `buf curl`, and returns its output."""
        connection = ("--protocol", "grpc", "--http2-prior-knowledge", "--reflect-protocol", "grpc-v1")
        return output(SCRIPTS / "buf", "curl", *connection, *arguments)


class Node:
    """grpc-js, an independent implementation of gRPC, called by node/client.mjs."""

    def services(self, target: str) -> set[str]:
        [answer] = self.reflect(target, {"list_services": ""})["messages"]
        return {service["name"] for service in answer["list_services_response"]["service"]}

    def methods(self, target: str, service: str) -> set[str]:
        described = self.reflect(target, {"file_containing_symbol": service})["services"]
        package, _, name = service.rpartition(".")
        assert package
        return {
            method["name"]
            for described_service in described
            if described_service["name"] == name
            for method in described_service["method"]
        }

    def call(self, target: str, method: str, request: Json) -> list[Json]:
        result = self.exchange(target, method, request)
        assert result["code"] == 0, result
        messages: list[Json] = result["messages"]
        return messages

    def reflect(self, target: str, request: Json) -> Json:
        """Returns the replies of the reflection service."""
        return self.exchange(target, "grpc.reflection.v1.ServerReflection/ServerReflectionInfo", request)

    @staticmethod
    def exchange(target: str, method: str, request: Json, **options: int) -> Json:
        """What node/client.mjs prints: messages, status code, status details; `options` are those of that program."""
        service, _, name = method.partition("/")
        call = {"target": target, "service": service, "method": name, "requests": [request], "includes": INCLUDES}
        result: Json = json.loads(output("node", HERE / "node" / "client.mjs", json.dumps(call | options)))
        return result


def output(*command: str | Path) -> str:
    """Runs a program, and returns its output. If it fails, the error contains its messages."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    return done.stdout


def documents(text: str) -> Iterator[Json]:
    """Returns the JSON objects that follow one another in `text`."""
    decoder = json.JSONDecoder(object_pairs_hook=named_as_in_the_contract)
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:]


def named_as_in_the_contract(pairs: list[tuple[str, Any]]) -> Json:
    """Returns an object whose keys are in lower_snake_case."""
    return {re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name): value for name, value in pairs}
