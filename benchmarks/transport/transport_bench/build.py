"""Builds the C++ programs, if Debian's packages for them are installed."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from transport_bench.errors import BenchmarkError
from transport_bench.rows import Kind
from transport_bench.texts import write_texts
from transport_bench.vllm import RELEASE, write_model

HERE = Path(__file__).parents[1]
REPOSITORY = HERE.parents[1]
CACHE = REPOSITORY / ".cache/transport"
VLLM = CACHE / f"vllm-rs-{RELEASE}"
PROTO = REPOSITORY / "proto"
CALLBACK_PACKAGES = "libgrpc++-dev, libprotobuf-dev, pkg-config, protobuf-compiler and protobuf-compiler-grpc"

_FLAGS = ("-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror")
_PROTOS = (
    "doherty/v1/answer",
    "doherty/v1/generation_service",
    "doherty/v1/model",
    "doherty/v1/request",
    "google/rpc/status",
)


@dataclass(frozen=True)
class Programs:
    """Where they are."""

    load: Path
    callback: Path
    """The server in C++, where it could be built."""
    texts: Path
    """What that server says."""
    vllm: Path
    """vLLM's front-end, where it has been fetched."""
    vllm_model: Path
    """What that front-end serves."""
    before: Path | None = None
    """The other checkout, if one was named."""

    def missing(self) -> dict[Kind, str]:
        """The servers that are not there, and how to get them."""
        missing = {}
        if not self.callback.exists():
            missing[Kind.CALLBACK] = f"NO SERVER IN C++ TO COMPARE WITH: install Debian's {CALLBACK_PACKAGES}."
        if not self.vllm.exists():
            missing[Kind.VLLM] = (
                "NO vllm-rs TO COMPARE WITH: fetch it with `python benchmarks/transport/fetch_vllm.py`."
            )
        if self.before is None:
            missing[Kind.BEFORE] = missing[Kind.HTTP2_BEFORE] = (
                "NO STATE BEFORE TO COMPARE WITH: name its checkout with --before."
            )
        return missing


def build() -> Programs:
    """Builds what has changed.

    Raises:
        BenchmarkError: the load generator cannot be built.
    """
    if shutil.which("g++") is None or not _compiles("nghttp2/nghttp2.h"):
        raise BenchmarkError("The load generator is built from C++: install Debian's g++ and libnghttp2-dev.")
    CACHE.mkdir(parents=True, exist_ok=True)
    programs = Programs(CACHE / "load", CACHE / "callback_server", CACHE / "texts", VLLM, CACHE / "vllm-model")
    _compile(programs.load, _sources("loadgen"), ["-lnghttp2"])
    if _has_grpc():
        _build_callback(programs.callback)
        write_texts(programs.texts)
    else:
        programs.callback.unlink(missing_ok=True)
    write_model(programs.vllm_model)
    return programs


def _has_grpc() -> bool:
    tools = all(shutil.which(name) for name in ("grpc_cpp_plugin", "protoc", "pkg-config"))
    return tools and _compiles("grpcpp/grpcpp.h") and _compiles("google/protobuf/duration.pb.h")


def _compiles(header: str) -> bool:
    """Whether the compiler finds a header."""
    command = ["g++", "-x", "c++", "-E", "-o", "/dev/null", "-"]
    return (
        subprocess.run(command, input=f"#include <{header}>\n", text=True, check=False, capture_output=True).returncode
        == 0
    )


def _build_callback(program: Path) -> None:
    """The contract's code is made by Debian's own compiler."""
    generated = CACHE / "generated"
    protos = [PROTO / f"{name}.proto" for name in _PROTOS]
    if _is_newer(program, [*_sources("callback_server"), *protos]):
        return
    generated.mkdir(exist_ok=True)
    _run(
        "protoc",
        f"-I{PROTO}",
        f"--cpp_out={generated}",
        f"--grpc_out={generated}",
        f"--plugin=protoc-gen-grpc={shutil.which('grpc_cpp_plugin')}",
        *map(str, protos),
    )
    libraries = _run("pkg-config", "--libs", "grpc++", "protobuf").split()
    sources = [*_sources("callback_server"), *generated.rglob("*.cc")]
    _compile(program, sources, [f"-I{generated}", *libraries])


def _sources(folder: str) -> list[Path]:
    return sorted(path for path in (HERE / folder).iterdir() if path.suffix in (".cpp", ".h"))


def _is_newer(program: Path, sources: list[Path]) -> bool:
    return program.exists() and program.stat().st_mtime > max(path.stat().st_mtime for path in sources)


def _compile(program: Path, sources: list[Path], flags: list[str]) -> None:
    """Compiles a program, unless it is newer than what it is made of."""
    if _is_newer(program, sources):
        return
    print(f"compiling {program.name}", flush=True)
    compiled = [str(path) for path in sources if path.suffix != ".h"]
    _run("g++", *_FLAGS, "-o", str(program), *compiled, *flags)


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"{command[0]} failed: {done.stderr[-2000:]}")
    return done.stdout
