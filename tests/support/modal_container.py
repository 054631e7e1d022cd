"""Runs containers of Modal as processes of Modal's own runtime. They run deploy/modal_app.py as it was deployed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from modal_proto import api_pb2

from support import modal_engine
from support.command import SECONDS
from support.modal_account import APP
from support.modal_cloud import Cloud
from support.ports import free_target


def children(process: subprocess.Popen[str]) -> list[int]:
    """Returns the process ids of the programs that a container runs."""
    return [
        int(pid) for file in Path(f"/proc/{process.pid}/task").glob("*/children") for pid in file.read_text().split()
    ]


class Machine:
    """The environment of containers: a copy of the app, and the parts of `doherty` that work without TensorRT-LLM."""

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        """Creates the files in a folder."""
        self._cloud = cloud
        self._folder = folder
        self.code = folder / "root" / APP.name
        self.code.parent.mkdir()
        shutil.copy(APP, self.code)
        self.keys = folder / "keys"
        """The Volume that contains the file of keys."""
        self.change('KEYS: Final = "/keys"', f'KEYS: Final = "{self.keys}"')
        program = folder / "bin" / "doherty"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{modal_engine.__file__}" "$@"\n')
        program.chmod(0o755)
        self.target = free_target()
        """The address at which tests reach the server in the container without Modal."""

    def change(self, line: str, other: str) -> None:
        """Replaces a line of the app."""
        code = self.code.read_text()
        assert f"{line}\n" in code
        self.code.write_text(code.replace(f"{line}\n", f"{other}\n"))

    @contextmanager
    def run(self, name: str, parameters: bytes, **variables: str) -> Iterator[subprocess.Popen[str]]:
        """Runs a container of a function until the end of the block.

        `variables` are added to those of its secrets.
        """
        arguments = self._folder / "arguments"
        arguments.write_bytes(self._arguments(name, parameters).SerializeToString())
        program = (sys.executable, "-m", "modal._container_entrypoint")
        environment = {**self._environment(name, arguments), **variables}
        with (self._folder / "log").open("w") as log:
            process = subprocess.Popen(program, env=environment, cwd=self.code.parent, stderr=log, text=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                for pid in (*children(process), process.pid):  # the programs in a container end with it
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            process.wait(SECONDS)

    def log(self) -> str:
        """Returns the output of the container."""
        return (self._folder / "log").read_text()

    def commands(self) -> list[list[str]]:
        """Returns the command lines that were run."""
        return [json.loads(line) for line in (self._folder / "notes").read_text().splitlines()]

    def _arguments(self, name: str, parameters: bytes) -> api_pb2.ContainerArguments:
        cloud = self._cloud
        ids = {function: cloud.ids[function] for function in cloud.functions}
        objects: list[dict[str, Any]] = [
            *({"object_id": ids[function], "function_handle_metadata": cloud.handle(function)} for function in ids),
            {"object_id": cloud.ids["Tunnel"], "class_handle_metadata": {}},
            *(
                {"object_id": volume_id, "volume_metadata": {"name": volume}}
                for volume_id, volume in cloud.volumes.items()
            ),
            *({"object_id": object_id} for object_id in (*cloud.secrets, *cloud.images)),
        ]
        layout = api_pb2.AppLayout(function_ids=ids, class_ids={"Tunnel": cloud.ids["Tunnel"]})
        layout.objects.extend(api_pb2.Object(**fields) for fields in objects)
        return api_pb2.ContainerArguments(
            task_id="ta-1",
            function_id=ids[name],
            app_id="ap-1",
            function_def=cloud.functions[name],
            serialized_params=parameters,
            environment_name="main",
            app_layout=layout,
        )

    def _environment(self, name: str, arguments: Path) -> Mapping[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOHERTY_", "MODAL_"))}
        return {
            **kept,
            **self._cloud.variables(name),
            "PATH": f"{self._folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.code.parent),
            "NOTES": str(self._folder / "notes"),
            "SERVES": self.target,
            "MODAL_SERVER_URL": self._cloud.url,
            "MODAL_IS_REMOTE": "1",
            "MODAL_TASK_ID": "ta-1",
            "MODAL_CONTAINER_ARGUMENTS_PATH": str(arguments),
        }
