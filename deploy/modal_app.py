"""Doherty on Modal: LLaMA 3 8B Instruct by TensorRT-LLM on an H100, served over gRPC in two ways.

`Server` has a permanent address: Modal routes calls to it, and starts a container when a call arrives. `Tunnel` is one
container with its own address, which its method `boot` returns. The address is valid until the container ends.

    modal run deploy/modal_app.py [--mode slow]     asks ten questions and prints the latencies
    modal deploy deploy/modal_app.py                serves until `modal app stop doherty`
    doherty chat --target modal:doherty             starts `Tunnel` and connects to it

Environment variables of `modal run` and `modal deploy`: MODE (fast or slow), GPUS (the number of H100s that share the
model), MAX_CONTAINERS (the maximum number of running containers, which limits the costs), and REGION (where containers
run; anywhere by default).

docs/deploy.md lists what you need first.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, cast

import modal
from modal.cls import Obj

MODEL: Final = "NousResearch/Meta-Llama-3-8B-Instruct"
REVISION: Final = "53346005fb0ef11d3b6a83b12c895cca40156b6c"
SYSTEM_PROMPT: Final = "You are a helpful, harmless, and honest AI assistant created by Meta."

SLOTS: Final = {"fast": 1, "slow": 32}
"""The modes, which are profiles of the engine trtllm, and the number of concurrent requests of each."""


def known(mode: str) -> str:
    """Returns the mode.

    Raises:
        ValueError: There is no such mode.
    """
    if mode not in SLOTS:
        raise ValueError(f"There is no mode {mode!r}; choose one of {', '.join(SLOTS)}.")
    return mode


# Modal needs these values before it runs anything. The container imports this file again, with the same variables.
MODE: Final = known(os.environ.get("MODE", "fast"))
GPUS: Final = int(os.environ.get("GPUS", "1"))
MAX_CONTAINERS: Final = int(os.environ.get("MAX_CONTAINERS", "2"))
"""The limit of `Server`. `Tunnel` has one container per mode."""
REGION: Final = os.environ.get("REGION", "")

GPU: Final = f"H100!:{GPUS}"
"""With "!", Modal never replaces an H100 by an H200: an engine is built for one type of GPU."""

PORT: Final = 50051
METRICS: Final = "127.0.0.1:9464"
"""Metrics contain the names of keys. So they can only be read inside the container."""
VOLUME: Final = "/vol"
KEYS: Final = "/keys"
KEYS_SECONDS: Final = 30
"""The interval in which a container reads the keys again."""
MINUTES: Final = 60
DRAIN_SECONDS: Final = 20
KEPT_SECONDS: Final = 4 * MINUTES
"""The interval in which a container in use reports that to Modal; much shorter than the scale-down window."""

ROOT: Final = Path(__file__).parents[1]
FOLDERS: Final = ("client", "engine", "proto", "service")
FILES: Final = (
    *("LICENSE", "README.md", "constraints.txt", "pyproject.toml"),
    *("deploy/envoy/doherty.binpb", "deploy/install_beside.sh"),
)


def make_image() -> modal.Image:
    """Returns NVIDIA's release image, as in the Dockerfile's target trtllm, with the server from this checkout.

    It is not a CUDA image, because pip would then have to find the versions that NVIDIA has tested together.
    """
    made = modal.Image.from_registry("nvcr.io/nvidia/tensorrt-llm/release:1.2.1").entrypoint([])
    for file in FILES:
        made = made.add_local_file(ROOT / file, f"/src/{file}", copy=True)
    for folder in FOLDERS:
        made = made.add_local_dir(ROOT / folder, f"/src/{folder}", copy=True, ignore=["**/__pycache__"])
    built = made.run_commands(
        "env PIP_CONSTRAINT=/src/constraints.txt python3 -m pip wheel --no-deps --wheel-dir /wheel /src",
        "bash /src/deploy/install_beside.sh /wheel/*.whl /src/constraints.txt",
    )
    # The volume keeps models, engines and compiled kernels for the next container.
    caches = {"HOME": VOLUME, "HF_HOME": f"{VOLUME}/huggingface", "XDG_CACHE_HOME": f"{VOLUME}/cache"}
    return built.env(caches)


app = modal.App("doherty")
image = make_image()
volume = modal.Volume.from_name("doherty-trtllm", create_if_missing=True)
addresses = modal.Dict.from_name("doherty-addresses", create_if_missing=True)
# Not a Secret: a container reads it only when it starts, so a revoked key would stay valid until the container ends.
keys = modal.Volume.from_name("doherty-keys", create_if_missing=True).with_mount_options(read_only=True)
environment: dict[str, str | None] = {
    "MODE": MODE,
    "GPUS": str(GPUS),
    "MAX_CONTAINERS": str(MAX_CONTAINERS),
    "REGION": REGION,
}


class Serving:
    """Runs `doherty serve` in a container. If the server ends by itself, the container ends, too."""

    def __init__(self, mode: str, *flags: str, on_request: Callable[[], None] | None = None) -> None:
        """Prepares the engine, which takes minutes the first time, and starts the server."""
        model = ("--model", MODEL, "--revision", REVISION)
        subprocess.run(("doherty", "engine", "prepare", *model, "--profile", mode), check=True)
        volume.commit()  # a commit fails while a file is open
        # The server checks its key file with every call, and access to a Volume is slow.
        self._keys_file = Path(tempfile.mkdtemp()) / "keys.json"
        self._copy_keys()
        listen = ("--listen", f"0.0.0.0:{PORT}", "--insecure")  # Modal encrypts the connection
        engine = ("--engine", "trtllm", "--model", MODEL, "-o", f"revision={REVISION}", "-o", f"profile={mode}")
        served = ("--keys-file", self._keys_file, "--system-prompt", SYSTEM_PROMPT, "--drain-grace", str(DRAIN_SECONDS))
        observed = ("--metrics-listen", METRICS)
        self._on_request = on_request
        self._stopping = threading.Event()
        # In its own session, so that signals to the container do not reach it: `stop` ends it.
        self._process = subprocess.Popen(
            ("doherty", "serve", *engine, *listen, *served, *observed, *flags),
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        ready = threading.Event()
        threading.Thread(target=self._follow, args=(ready,), daemon=True).start()
        threading.Thread(target=self._follow_keys, daemon=True).start()
        ready.wait()

    def stop(self) -> None:
        """Stops the server after its running requests have finished."""
        self._stopping.set()
        self._process.terminate()
        self._process.wait()

    def _follow(self, ready: threading.Event) -> None:
        """Copies the log, and ends the container if the server ends unexpectedly. Modal then starts another one."""
        for line in self._process.stderr or ():
            sys.stderr.write(line)
            if '"event": "ready"' in line:
                ready.set()
            elif '"event": "request"' in line and self._on_request is not None:
                self._on_request()
        code = self._process.wait()
        if not self._stopping.is_set():
            sys.stderr.write(f"doherty serve ended with {code}\n")
            sys.stderr.flush()
            os._exit(code or 1)  # also for 0: a container without a server only costs money

    def _follow_keys(self) -> None:
        """Copies changed keys from the Volume to the server's file."""
        while not self._stopping.wait(KEYS_SECONDS):
            try:
                keys.reload()
                self._copy_keys()
            except (modal.Error, RuntimeError, OSError) as error:  # try again after the next interval
                sys.stderr.write(f"The keys could not be read again: {error}\n")

    def _copy_keys(self) -> None:
        """Copies the key file from the Volume. Readers see either the old or the new file."""
        fresh = self._keys_file.with_suffix(".new")
        fresh.write_bytes(Path(KEYS, "keys.json").read_bytes())
        fresh.replace(self._keys_file)


@app.server(
    image=image,
    gpu=GPU,
    volumes={VOLUME: volume, KEYS: keys},
    env=environment,
    port=PORT,
    h2_enabled=True,
    # Doherty's keys authenticate callers. Modal's keys would have to be in the metadata of every call.
    unauthenticated=True,
    # No max_concurrency: Modal would refuse requests that admission would queue, without a time to retry.
    target_concurrency=SLOTS[MODE],
    max_containers=MAX_CONTAINERS,
    compute_region=REGION or None,
    routing_region=REGION or "us-east",
    scaledown_window=10 * MINUTES,
    startup_timeout=60 * MINUTES,
    exit_grace_period=DRAIN_SECONDS + 10,
)
class Server:
    """A server behind Modal's proxy."""

    @modal.enter()
    def start(self) -> None:
        """Serves the deployed mode."""
        # Health is off, because a health Watch is a call without an end: Modal would never see an idle server.
        self._serving = Serving(MODE, "--health", "off")

    @modal.exit()
    def stop(self) -> None:
        """Stops the server."""
        self._serving.stop()


@app.cls(
    image=image,
    gpu=GPU,
    volumes={VOLUME: volume, KEYS: keys},
    env=environment,
    max_containers=1,  # per mode, because a mode has one address
    region=REGION or None,
    timeout=10 * MINUTES,
    scaledown_window=10 * MINUTES,
    startup_timeout=60 * MINUTES,
)
@modal.concurrent(max_inputs=SLOTS[MODE])
class Tunnel:
    """A server behind a tunnel, which has a lower latency than the proxy that routes calls."""

    mode: str = modal.parameter(default=MODE)

    @modal.enter()
    def start(self) -> None:
        """Serves the mode, and publishes the address."""
        self._said_at = time.monotonic()
        self._serving = Serving(self.mode, on_request=self._keep)
        self._tunnel = ExitStack()
        host, port = self._tunnel.enter_context(modal.forward(PORT, h2_enabled=True)).tls_socket
        self._address = f"{host}:{port}"
        addresses.put(self.mode, self._address)

    @modal.method()
    def boot(self) -> str:
        """Returns the address. Modal starts the container first if it does not run."""
        return self._address

    @modal.exit()
    def stop(self) -> None:
        """Withdraws the address and stops the server."""
        if addresses.get(self.mode) == self._address:
            addresses.pop(self.mode)
        self._serving.stop()
        self._tunnel.close()

    def _keep(self) -> None:
        """Calls `boot` at intervals while requests arrive, because Modal does not see calls through a tunnel."""
        now = time.monotonic()
        if now - self._said_at <= KEPT_SECONDS:
            return
        try:
            booted(self.mode).boot.spawn()  # self.boot is not the deployed function
            self._said_at = now
        except modal.Error as error:  # try again with the next request
            sys.stderr.write(f"The use of the tunnel could not be reported to Modal: {error}\n")


def booted(mode: str) -> Obj:
    """Returns the deployed tunnel of a mode."""
    return cast("modal.Cls", Tunnel)(mode=known(mode))


@app.local_entrypoint()
def main(mode: str = MODE) -> None:
    """Starts the server, asks it ten questions from this machine, and prints p50 and p90."""
    # From the extra `cli`, which the container does not need.
    from doherty.cli._connect import ServerOptions  # noqa: PLC0415
    from doherty.cli._reference import run_reference  # noqa: PLC0415

    if not os.environ.get("DOHERTY_API_KEY"):
        sys.exit("The server requires a key: set DOHERTY_API_KEY to a key from the Volume doherty-keys.")
    address = booted(mode).boot.remote()
    run_reference(ServerOptions(address, timeout=60, api_key=None, tls=True, insecure=False), None, as_json=False)
