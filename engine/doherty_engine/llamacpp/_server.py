"""Runs llama.cpp's server in this process; no other module uses xllamacpp.

All functions block and must be called in a worker thread.
"""

import http.client
import json
import mmap
import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from doherty_engine._errors import EngineFailedError, EngineSetupError, OutOfResourcesError, is_shortage
from doherty_engine._requests import Message
from doherty_engine.llamacpp._gguf import Gguf
from doherty_engine.llamacpp._socket_folder import SOCKET, make_socket_folder, remove_socket_folder
from doherty_engine.text import begins_answer, can_render, template_failure, template_refusal
from doherty_extras import install_command

BATCH_TOKENS = 64
"""How much of a prompt is computed at a time at most. An abort, and the next token of every other answer, wait for it.
Smaller batches take more time for the whole prompt: 32 tokens, a third more."""

_HTTP_THREADS = 4
"""Threads of llama.cpp's HTTP listener, in addition to one per slot. Its own default is one per CPU core."""

_NO_TEMPLATE = "{{ '' }}"
"""Replaces a chat template that is missing or unreadable. If it is missing, llama.cpp would use another model's; if it
is unreadable, llama.cpp would not load the model."""
_REFUSAL_PREFIX = "Error: Jinja Exception: "
"""llama.cpp puts this before the message that a template passed to `raise_exception`."""


class LlamaServerGoneError(EngineFailedError):
    """llama.cpp does not answer any more, so no request can be served."""


class LlamaServer:
    """One loaded model, with its slots and its KV cache."""

    def __init__(self, path: Path, *, gguf: Gguf, slots: int, context_tokens: int, threads: int) -> None:
        """Loads the model; `gguf` is the metadata of its file.

        Raises:
            EngineSetupError: xllamacpp is not installed, or cannot load the file.
        """
        xllamacpp = _import_xllamacpp()
        self.version = version("xllamacpp")
        # llama.cpp always opens a listener. No other user can reach this one.
        self._folder = make_socket_folder()
        self._key = secrets.token_urlsafe()
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.hostnames = [str(self._folder / SOCKET)]
        params.api_keys = [self._key]
        params.n_ctx = context_tokens
        params.n_parallel = slots
        params.kv_unified = True
        params.n_batch = params.n_ubatch = BATCH_TOKENS + slots  # and one token of each answer
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.n_threads_http = slots + _HTTP_THREADS
        params.cache_ram_mib = 0
        params.slot_save_path = str(self._folder)  # without it, slots cannot be emptied; nothing is saved there
        params.prefill_assistant = False
        params.verbosity = -1
        try:
            self._server, is_readable = self._load(xllamacpp, params, gguf)
        except RuntimeError as error:
            remove_socket_folder(self._folder)
            raise _load_error(
                path, gguf, is_known=_knows(xllamacpp, gguf.architecture), version=self.version
            ) from error
        self.has_chat_template = is_readable and can_render(self._apply_template)
        """Whether the model's chat template can render conversations."""

    def _load(self, xllamacpp: ModuleType, params: Any, gguf: Gguf) -> tuple[Any, bool]:
        """Loads the model; returns the server, and whether it uses the model's own chat template."""
        if gguf.has_chat_template:
            try:
                return xllamacpp.Server(params), True
            except RuntimeError:  # it gives no reason; if the architecture is known, the template may be the cause
                if not _knows(xllamacpp, gguf.architecture):
                    raise
                (self._folder / SOCKET).unlink(missing_ok=True)  # the failed attempt may have left it
        params.chat_template = _NO_TEMPLATE
        return xllamacpp.Server(params), False

    def complete(self, request: Mapping[str, object], on_chunk: Callable[[Any], bool]) -> None:
        """Generates until the answer ends or `on_chunk` returns True.

        `on_chunk` must not raise, because llama.cpp discards exceptions.
        """
        self._server.handle_completions(dict(request), on_chunk)

    def render(self, messages: Sequence[Message]) -> str:
        """Renders a conversation with the model's chat template.

        Raises:
            ValueError: The template cannot render it, or there is no template. The message is meant for the caller.
        """
        if not self.has_chat_template:
            raise ValueError("the model has no chat template")
        return self._apply_template(messages)

    def _apply_template(self, messages: Sequence[Message]) -> str:
        turns = [{"role": message.role.value, "content": message.content} for message in messages]
        try:
            answer = self._ask("/apply-template", {"messages": turns, "add_generation_prompt": begins_answer(messages)})
        except ValueError as error:
            _, is_refusal, reason = str(error).partition(_REFUSAL_PREFIX)
            raise (template_refusal(reason) if is_refusal else template_failure()) from error
        prompt: str = answer["prompt"]
        return prompt

    def tokenize(self, content: str | Sequence[str | int], *, with_special: bool) -> tuple[int, ...]:
        """Tokenizes a text.

        Args:
            content: The text, or its parts, each of which is a text or a token id.
            with_special: Whether to parse control tokens in the text, and to add the tokens that the model expects at
                the start of a prompt.
        """
        answer = self._ask(
            "/tokenize", {"content": content, "add_special": with_special, "parse_special": with_special}
        )
        return tuple(answer["tokens"])

    def empty_slots(self, numbers: Sequence[int]) -> None:
        """Frees the cells of free slots in the KV cache; waits for the end of the current step."""
        if numbers:
            with ThreadPoolExecutor(len(numbers)) as threads:  # one after the other, each would wait for a step
                list(threads.map(self._empty_slot, numbers))

    def _empty_slot(self, number: int) -> None:
        self._ask(f"/slots/{number}?action=erase", {})

    def close(self) -> None:
        """Frees the model's memory and removes the listener's socket."""
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
                raise OutOfResourcesError(f"llama.cpp's {path} cannot be called: {error}") from error
            raise LlamaServerGoneError(f"llama.cpp does not answer {path}: {error!r}") from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise ValueError(answer["error"]["message"])
        return answer


def _knows(xllamacpp: ModuleType, architecture: str) -> bool:
    """Whether llama.cpp supports an architecture: it has no call to ask, so this looks for the name in its library."""
    library = xllamacpp.xllamacpp.__file__
    with Path(library).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(architecture.encode() + b"\0") >= 0


def _load_error(path: Path, gguf: Gguf, *, is_known: bool, version: str) -> EngineSetupError:
    if not is_known:
        return EngineSetupError(
            f"The model {path} has the architecture {gguf.architecture}, which xllamacpp {version} does not know; "
            "install a newer xllamacpp, or choose another model."
        )
    return EngineSetupError(
        f"llama.cpp cannot load the model {path}, although the file is complete and xllamacpp {version} supports its "
        f"architecture {gguf.architecture}: there may be too little memory, or the file may lack a tensor or a "
        "setting; download it again, or choose another model."
    )


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def _import_xllamacpp() -> ModuleType:
    # Without this, libgomp's threads spin at barriers: with two busy threads on two cores, 57 tokens/s became 1.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        return import_module("xllamacpp")
    except ModuleNotFoundError as error:
        raise EngineSetupError(
            f"The engine llamacpp needs the package xllamacpp; run `{install_command('cpu')}`."
        ) from error
    except ImportError as error:
        if "libgomp" in str(error):
            raise EngineSetupError(
                "The engine llamacpp needs the system's OpenMP library; on Debian and Ubuntu run "
                "`apt-get install libgomp1`."
            ) from error
        raise EngineSetupError(f"The package xllamacpp cannot be imported ({error}); reinstall it.") from error
