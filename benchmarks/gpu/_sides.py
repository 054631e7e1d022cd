"""Starts and stops the compared processes. Each one has one or more rows in the tables."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from _processes import is_running, pin
from doherty import Client, DohertyError

HERE = Path(__file__).parent
MODEL_TOKENS = 2048
KV_BYTES = 4 << 30
"""Bytes of the KV cache of each engine, so that four fit on one GPU: 32,000 tokens of Llama 3 8B's shape."""
START_SECONDS = 400.0
ROWS = {
    "asyncllm": "in-process AsyncLLM",
    "engine": "in-process, our engine",
    "stream": "our StreamGenerate",
    "multiplex": "our MultiplexGenerate",
    "http2-stream": "our StreamGenerate on the transport http2",
    "http2-multiplex": "our MultiplexGenerate on the transport http2",
    "lean": "our StreamGenerate, read by a lean client",
    "http2-lean": "our StreamGenerate on the transport http2, read by a lean client",
    "sse": "vLLM's OpenAI server, SSE",
    "ids": "in-process AsyncLLM, ids only",
    "smg": "vLLM's gRPC server, ids only",
    "rust": "vLLM's Rust front-end, gRPC",
}
"""The names of the drivers in the tables, in order."""


@dataclass(frozen=True, slots=True)
class Side:
    """A running server, or an engine without one."""

    name: str
    pid: int
    target: str
    drivers: tuple[str, ...]
    seconds: float = 0.0
    """The duration of its start, in seconds."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A process that is starting."""

    name: str
    kind: str
    process: subprocess.Popen[bytes]
    target: str
    drivers: tuple[str, ...]
    log: Path


def start(engine: str, folder: Path, state: Path, kinds: list[str]) -> list[Side]:
    """Starts processes at the same time, beside those that run. Returns all running ones when all can answer.

    Raises:
        RuntimeError: One of them ended, or took too long.
    """
    sides = running(state) + wait_until_ready(
        [launch(kind, kind, engine, engine_options(engine, folder), state) for kind in kinds]
    )
    save(state, sides)
    return sides


def save(state: Path, sides: list[Side]) -> None:
    """Stores the running processes for `running`."""
    state.mkdir(parents=True, exist_ok=True)
    (state / "sides.json").write_text(json.dumps([asdict(side) for side in sides]))


def wait_until_ready(launches: list[Launch]) -> list[Side]:
    """Waits until all can answer, and pins each to its cores.

    Raises:
        RuntimeError: One of them ended, or took too long.
    """
    begun = time.monotonic()
    sides: dict[str, Side] = {}
    while len(sides) < len(launches):
        for candidate in launches:
            took = time.monotonic() - begun
            if candidate.process.poll() is not None or took > START_SECONDS:
                log = candidate.log.read_text(encoding="utf-8", errors="replace")
                for other in launches:
                    if other.process.poll() is None:
                        os.killpg(other.process.pid, signal.SIGKILL)
                raise RuntimeError(f"{candidate.name} did not start within {took:.0f} s:\n{log[-6000:]}")
            if candidate.name not in sides and _READY[candidate.kind](candidate.target):
                pin(candidate.process.pid)
                sides[candidate.name] = Side(
                    candidate.kind, candidate.process.pid, candidate.target, candidate.drivers, took
                )
                print(f"{candidate.name} is ready after {took:.0f} s", flush=True)
        time.sleep(0.2)
    return [sides[candidate.name] for candidate in launches]


def running(state: Path) -> list[Side]:
    """Returns the running processes that an earlier `start` has started."""
    if not (state / "sides.json").exists():
        return []
    stored = json.loads((state / "sides.json").read_text())
    return [Side(**side | {"drivers": tuple(side["drivers"])}) for side in stored if is_running(side["pid"])]


def stop(sides: list[Side]) -> None:
    """Ends the processes."""
    for side in sides:
        os.killpg(side.pid, signal.SIGTERM)


def engine_options(engine: str, folder: Path) -> dict[str, str]:
    """Returns the options of our engine, with and without our server."""
    if engine == "synthetic":
        return {"tokens_per_second": "200", "prefill_seconds": "0.01", "answer_tokens": "2000"}
    return {
        "model": str(folder),
        "load_format": "dummy",
        "attention_backend": "FLASH_ATTN",
        "max_model_len": str(MODEL_TOKENS),
        "gpu_memory_utilization": "0.2",
        "engine_args": json.dumps({"kv_cache_memory_bytes": KV_BYTES}),
    }


def launch(name: str, kind: str, engine: str, options: Mapping[str, str], state: Path, **variables: str) -> Launch:
    """Starts a process. `name` is the name of its log, and `variables` are added to its environment."""
    state.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    target = str(state / "inprocess.socket") if kind == "inprocess" else f"127.0.0.1:{port}"
    theirs = ["--host=127.0.0.1", f"--port={port}", *_vllm_arguments(options)]
    python = sys.executable
    doherty = [
        *(python, "-m", "doherty_service", f"--listen={target}", f"--engine={engine}", "--canary-interval=0"),
        *(f"-o{key}={value}" for key, value in options.items()),
    ]
    commands = {
        "inprocess": [python, str(HERE / "_inprocess.py"), target, engine, json.dumps(options)],
        "doherty": doherty,
        "http2": [*doherty, "--transport=http2"],
        "openai": [python, "-m", "vllm.entrypoints.openai.api_server", *theirs],
        "smg": [python, "-m", "vllm.entrypoints.grpc_server", *theirs],
        "rust": [*_rust_front_end(), *_rust_arguments(options, port)],
    }
    if kind == "inprocess":
        Path(target).unlink(missing_ok=True)
    path = state / f"{name}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            commands[kind],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=state,
            env=os.environ | variables,
        )
    drivers = ("engine",) if (kind, engine) == ("inprocess", "synthetic") else _DRIVERS[kind]
    return Launch(name, kind, process, target, drivers, path)


def _vllm_arguments(options: Mapping[str, str]) -> list[str]:
    """Returns the arguments of vLLM's own servers that correspond to our profile `fast`."""
    values: dict[str, object] = {
        "served-model-name": "m",
        "quantization": "fp8",
        "performance-mode": "interactivity",
        "max-num-seqs": 64,
    }
    for name, value in options.items():
        values |= json.loads(value) if name == "engine_args" else {name: value}
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]


def _rust_front_end() -> list[str]:
    """Returns the path of the binary in vLLM's wheel; an empty list without vLLM, for sides that do not need it."""
    spec = find_spec("vllm")
    folders = [] if spec is None else spec.submodule_search_locations or []
    return [str(Path(folder) / "vllm-rs") for folder in folders]


def _rust_arguments(options: Mapping[str, str], port: int) -> list[str]:
    """Returns the arguments of vLLM's Rust front-end, and after "--" those that it passes to vLLM's engine."""
    engine = [
        argument
        for argument in _vllm_arguments(options)
        if not argument.startswith(("--model=", "--served-model-name="))
    ]
    return [
        *("serve", options.get("model", ""), "--python", sys.executable, "--served-model-name", "m"),
        *("--host", "127.0.0.1", "--port", str(_free_port()), "--grpc-port", str(port), "--", *engine),
    ]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _listens(target: str) -> bool:
    if target.startswith("/"):
        return Path(target).exists()
    host, _, port = target.partition(":")
    with socket.socket() as connection:
        return connection.connect_ex((host, int(port))) == 0


def _serves(target: str) -> bool:
    try:
        with Client(target, timeout=1, retry=None) as client:
            return client.health() == "SERVING"
    except DohertyError:
        return False


def _is_healthy(target: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{target}/health", timeout=1) as reply:
            return bool(reply.status == 200)  # noqa: PLR2004 - HTTP's OK
    except (OSError, urllib.error.URLError):
        return False


_READY: dict[str, Callable[[str], bool]] = {
    "inprocess": _listens,
    "doherty": _serves,
    "http2": _serves,
    "openai": _is_healthy,
    "smg": _listens,  # it listens as soon as its engine is ready
    "rust": _listens,  # as well
}
_DRIVERS = {
    "inprocess": ("asyncllm", "engine", "ids"),
    "doherty": ("stream", "multiplex", "lean"),
    "http2": ("http2-stream", "http2-multiplex", "http2-lean"),
    "openai": ("sse",),
    "smg": ("smg",),
    "rust": ("rust",),
}
