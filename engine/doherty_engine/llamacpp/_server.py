"""llama.cpp's server, in this process: the one module that knows xllamacpp.

Everything here blocks, and belongs into a worker thread.
"""

import http.client
import json
import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from doherty_engine._errors import EngineFailedError, EngineSetupError, OutOfResourcesError, is_shortage
from doherty_engine._requests import Message
from doherty_engine.llamacpp._socket_folder import SOCKET, make_socket_folder, remove_socket_folder

_BATCH_TOKENS = 128
"""Of a prompt, computed at a time: for so long an abort, and the next token of every other answer, must wait."""


class LlamaServerGoneError(EngineFailedError):
    """llama.cpp does not answer any more: no request can be served."""


class LlamaServer:
    """One loaded model, with its slots and its KV cache."""

    def __init__(self, path: Path, *, slots: int, context_tokens: int, threads: int) -> None:
        """Loads the model.

        Raises:
            EngineSetupError: xllamacpp is not there, or cannot load the file.
        """
        xllamacpp = _import_xllamacpp()
        self.version = version("xllamacpp")
        # llama.cpp insists on a listener: this one is out of reach for every other user.
        self._folder = make_socket_folder()
        self._key = secrets.token_urlsafe()
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.hostnames = [str(self._folder / SOCKET)]
        params.api_keys = [self._key]
        params.n_ctx = context_tokens
        params.n_parallel = slots
        params.kv_unified = True
        params.n_batch = params.n_ubatch = _BATCH_TOKENS
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.cache_ram_mib = 0
        params.verbosity = -1
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            remove_socket_folder(self._folder)
            raise EngineSetupError(f"llama.cpp cannot load the model {path}; name another model.") from error

    def complete(self, request: Mapping[str, object], on_chunk: Callable[[Any], bool]) -> None:
        """Generates until the answer ends or `on_chunk` returns True; llama.cpp swallows what that raises."""
        self._server.handle_completions(dict(request), on_chunk)

    def render(self, messages: Sequence[Message]) -> str:
        """Puts a conversation into the form that the model was trained on.

        Raises:
            ValueError: the model's chat template refuses it; the message is the template's.
        """
        turns = [{"role": message.role.value, "content": message.content} for message in messages]
        prompt: str = self._ask("/apply-template", {"messages": turns})["prompt"]
        return prompt

    def tokenize(self, text: str, *, with_special: bool) -> tuple[int, ...]:
        """Splits a text into tokens, with or without the model's special ones (spelled out, or put at the start)."""
        answer = self._ask("/tokenize", {"content": text, "add_special": with_special, "parse_special": with_special})
        return tuple(answer["tokens"])

    def close(self) -> None:
        """Gives the model's memory back and removes the listener."""
        del self._server
        remove_socket_folder(self._folder)

    def _ask(self, path: str, body: Mapping[str, object]) -> Any:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        connection = _UnixConnection(self._folder / SOCKET)
        try:
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            if is_shortage(error):
                raise OutOfResourcesError(f"llama.cpp cannot be asked for {path}: {error}") from error
            raise LlamaServerGoneError(f"llama.cpp does not answer {path}: {error!r}") from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise ValueError(answer["error"]["message"])
        return answer


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def _import_xllamacpp() -> ModuleType:
    # libgomp spins at its barriers otherwise: two busy threads on two cores fall from 57 tokens a second to 1.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        return import_module("xllamacpp")
    except ModuleNotFoundError as error:
        raise EngineSetupError(
            "The engine llamacpp needs the package xllamacpp; run `pip install 'doherty[cpu]'`."
        ) from error
    except ImportError as error:
        if "libgomp" in str(error):
            raise EngineSetupError(
                "The engine llamacpp needs the system's OpenMP library; on Debian and Ubuntu run "
                "`apt-get install libgomp1`."
            ) from error
        raise EngineSetupError(f"The package xllamacpp cannot be loaded ({error}); install it again.") from error
