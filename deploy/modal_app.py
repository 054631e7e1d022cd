"""Doherty on Modal: LLaMA 3 8B Instruct by TensorRT-LLM on an H100, served over gRPC in two ways.

`Server` has an address that stays: Modal routes calls to it, and starts it when one comes. `Tunnel` is a container with
an address of its own, which its method `boot` tells, and which goes when the container does.

    modal run deploy/modal_app.py [--mode slow]     ten questions, and how fast they were answered
    modal deploy deploy/modal_app.py                serves until `modal app stop doherty`
    doherty chat --target modal:doherty             boots `Tunnel`, and talks with it

Variables of `modal run` and `modal deploy`: MODE (fast or slow), GPUS (how many H100 share the model), MAX_CONTAINERS
(the most that run at a time, which bounds the costs), and REGION (where they run; anywhere by default).

docs/deploy.md says what has to be there before.
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
"""The modes, which are profiles of the engine trtllm, and how many requests each works on at a time."""


def known(mode: str) -> str:
    """The mode, if there is such a one."""
    if mode not in SLOTS:
        raise ValueError(f"There is no mode {mode!r}; choose one of {', '.join(SLOTS)}.")
    return mode


# What Modal must know before it runs anything. This file is read again in the container, which is given the same.
MODE: Final = known(os.environ.get("MODE", "fast"))
GPUS: Final = int(os.environ.get("GPUS", "1"))
MAX_CONTAINERS: Final = int(os.environ.get("MAX_CONTAINERS", "2"))
"""Of `Server`. `Tunnel` has one for each mode."""
REGION: Final = os.environ.get("REGION", "")

GPU: Final = f"H100!:{GPUS}"
"""With "!", Modal gives no H200 in place of an H100: an engine is built for one kind of GPU."""

PORT: Final = 50051
METRICS: Final = "127.0.0.1:9464"
"""They name keys, so only who may open a shell in the container reads them."""
VOLUME: Final = "/vol"
KEYS: Final = "/keys"
KEYS_SECONDS: Final = 30
"""How often a container looks for changed keys."""
MINUTES: Final = 60
DRAIN_SECONDS: Final = 20
KEPT_SECONDS: Final = 4 * MINUTES
"""After how long a container that is in use says so to Modal: well within the scale-down window."""

ROOT: Final = Path(__file__).parents[1]
FOLDERS: Final = ("client", "engine", "proto", "service")
FILES: Final = (
    *("LICENSE", "README.md", "constraints.txt", "pyproject.toml"),
    *("deploy/envoy/doherty.binpb", "deploy/install_beside.sh"),
)


def make_image() -> modal.Image:
    """NVIDIA's release image, as the Dockerfile's target trtllm has it, with the server from this checkout beside.

    Not a CUDA image: pip would have to bring together what NVIDIA has tested together.
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
    # Models, engines and compiled kernels are where the next container finds them.
    caches = {"HOME": VOLUME, "HF_HOME": f"{VOLUME}/huggingface", "XDG_CACHE_HOME": f"{VOLUME}/cache"}
    return built.env(caches)


app = modal.App("doherty")
image = make_image()
volume = modal.Volume.from_name("doherty-trtllm", create_if_missing=True)
addresses = modal.Dict.from_name("doherty-addresses", create_if_missing=True)
# A Secret would be read when a container starts, and a key that was revoked would live as long as the container.
keys = modal.Volume.from_name("doherty-keys", create_if_missing=True).with_mount_options(read_only=True)
environment: dict[str, str | None] = {
    "MODE": MODE,
    "GPUS": str(GPUS),
    "MAX_CONTAINERS": str(MAX_CONTAINERS),
    "REGION": REGION,
}


class Serving:
    """`doherty serve` in a container, from when it is ready to its drain. If it ends by itself, the container ends."""

    def __init__(self, mode: str, *flags: str, on_request: Callable[[], None] | None = None) -> None:
        """Prepares the engine, which takes minutes the first time and then seconds, and serves it."""
        model = ("--model", MODEL, "--revision", REVISION)
        subprocess.run(("doherty", "engine", "prepare", *model, "--profile", mode), check=True)
        volume.commit()  # before anything is open in it
        # The server looks at its file with every call, and a file of a Volume is far away.
        self._keys_file = Path(tempfile.mkdtemp()) / "keys.json"
        self._copy_keys()
        listen = ("--listen", f"0.0.0.0:{PORT}", "--insecure")  # Modal encrypts on the way here
        engine = ("--engine", "trtllm", "--model", MODEL, "-o", f"revision={REVISION}", "-o", f"profile={mode}")
        served = ("--keys-file", self._keys_file, "--system-prompt", SYSTEM_PROMPT, "--drain-grace", str(DRAIN_SECONDS))
        observed = ("--metrics-listen", METRICS)
        self._on_request = on_request
        self._stopping = threading.Event()
        # A signal to the container is not for it: `stop` comes first.
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
        """Lets what is in flight finish."""
        self._stopping.set()
        self._process.terminate()
        self._process.wait()

    def _follow(self, ready: threading.Event) -> None:
        """Passes the log on, and ends the container when the server ends unasked: Modal starts another one."""
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
            os._exit(code or 1)  # also for 0: without a server, the container would be paid for nothing

    def _follow_keys(self) -> None:
        """Hands keys that were changed in the Volume to the server."""
        while not self._stopping.wait(KEYS_SECONDS):
            try:
                keys.reload()
                self._copy_keys()
            except (modal.Error, RuntimeError, OSError) as error:  # the keys stay as they are until the next time
                sys.stderr.write(f"The keys could not be read again: {error}\n")

    def _copy_keys(self) -> None:
        """Copies the file of keys from the Volume, in one step for whoever reads it."""
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
    # Our keys say who calls; Modal's would have to go into the metadata of every call.
    unauthenticated=True,
    # No max_concurrency: Modal would refuse what admission lets wait, and would not say for how long.
    target_concurrency=SLOTS[MODE],
    max_containers=MAX_CONTAINERS,
    compute_region=REGION or None,
    routing_region=REGION or "us-east",
    scaledown_window=10 * MINUTES,
    startup_timeout=60 * MINUTES,
    exit_grace_period=DRAIN_SECONDS + 10,
)
class Server:
    """The server behind Modal's proxy."""

    @modal.enter()
    def start(self) -> None:
        """Serves the mode that was deployed."""
        # A watch on the health would be a call without an end: to Modal the server would never be idle.
        self._serving = Serving(MODE, "--health", "off")

    @modal.exit()
    def stop(self) -> None:
        """Drains."""
        self._serving.stop()


@app.cls(
    image=image,
    gpu=GPU,
    volumes={VOLUME: volume, KEYS: keys},
    env=environment,
    max_containers=1,  # of each mode, which has one address
    region=REGION or None,
    timeout=10 * MINUTES,
    scaledown_window=10 * MINUTES,
    startup_timeout=60 * MINUTES,
)
@modal.concurrent(max_inputs=SLOTS[MODE])
class Tunnel:
    """The server behind a tunnel: the shortest way to it, without a proxy that routes calls."""

    mode: str = modal.parameter(default=MODE)

    @modal.enter()
    def start(self) -> None:
        """Serves the mode, and puts its address where others find it."""
        self._said_at = time.monotonic()
        self._serving = Serving(self.mode, on_request=self._keep)
        self._tunnel = ExitStack()
        host, port = self._tunnel.enter_context(modal.forward(PORT, h2_enabled=True)).tls_socket
        self._address = f"{host}:{port}"
        addresses.put(self.mode, self._address)

    @modal.method()
    def boot(self) -> str:
        """Starts the container if it is not there, and tells its address."""
        return self._address

    @modal.exit()
    def stop(self) -> None:
        """Takes the address back, and drains."""
        if addresses.get(self.mode) == self._address:
            addresses.pop(self.mode)
        self._serving.stop()
        self._tunnel.close()

    def _keep(self) -> None:
        """Calls itself now and then while it is in use: Modal does not see calls through a tunnel, and would end it."""
        now = time.monotonic()
        if now - self._said_at <= KEPT_SECONDS:
            return
        try:
            booted(self.mode).boot.spawn()  # self.boot would not be the function that this container runs
            self._said_at = now
        except modal.Error as error:  # with the next request again
            sys.stderr.write(f"Modal was not told that the tunnel is in use: {error}\n")


def booted(mode: str) -> Obj:
    """The tunnel to the server in a mode, as its callers see it."""
    return cast("modal.Cls", Tunnel)(mode=known(mode))


@app.local_entrypoint()
def main(mode: str = MODE) -> None:
    """Boots the server, asks it ten questions from here, and prints p50 and p90."""
    # Of the extra `cli`, which only this side needs.
    from doherty.cli._connect import ServerOptions  # noqa: PLC0415
    from doherty.cli._reference import run_reference  # noqa: PLC0415

    if not os.environ.get("DOHERTY_API_KEY"):
        sys.exit("The server asks for a key: set DOHERTY_API_KEY to one that the Volume doherty-keys has.")
    address = booted(mode).boot.remote()
    run_reference(ServerOptions(address, timeout=60, api_key=None, tls=True, insecure=False), None, as_json=False)
