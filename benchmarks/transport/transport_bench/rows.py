"""Which servers are compared, and how each is called."""

from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """A server, as a program."""

    DOHERTY = auto()
    """With keys, metrics and the log of requests."""
    BEFORE = auto()
    """The same, from another checkout."""
    NAIVE = auto()
    SSE = auto()
    CALLBACK = auto()
    VLLM = auto()
    """vLLM's front-end in Rust, with a stand-in for its engine in a process of its own."""
    ENGINE = auto()
    """No server: the synthetic engine alone, under the same load."""


@dataclass(frozen=True)
class Row:
    """A server and the way in which it is called."""

    name: str
    title: str
    kind: Kind
    protocol: str
    """What the load generator speaks."""
    whole_protocol: str | None
    """What it speaks for whole answers; None has no such row."""
    per_connection: int = 1
    with_sdk: bool = False
    """Whether the caller is the SDK, and not the load generator."""
    whole_title: str = ""
    """What it is called where answers come whole; empty is the same."""


TOGETHER = 8
"""How many requests share an RPC of MultiplexGenerate and its connection; to vLLM's front-end the connection alone."""

ROWS = {
    row.name: row
    for row in (
        Row("stream", "StreamGenerate", Kind.DOHERTY, "stream", "generate", whole_title="Generate"),
        Row("multiplex", "MultiplexGenerate", Kind.DOHERTY, "multiplex", "multiplex-whole", TOGETHER),
        Row("naive", "naive grpc.aio", Kind.NAIVE, "stream", "generate"),
        Row("sse", "FastAPI + uvicorn SSE", Kind.SSE, "sse", None),
        Row("callback", "C++ grpc++ callback", Kind.CALLBACK, "stream", "generate"),
        Row("vllm-rs", "vLLM's Rust front-end", Kind.VLLM, "vllm-stream", "vllm-generate"),
        Row(
            "vllm-rs-shared",
            "vLLM's Rust front-end, 8 RPCs on a connection",
            Kind.VLLM,
            "vllm-stream",
            "vllm-generate",
            TOGETHER,
        ),
        Row("stream-before", "StreamGenerate before", Kind.BEFORE, "stream", "generate", whole_title="Generate before"),
        Row("multiplex-before", "MultiplexGenerate before", Kind.BEFORE, "multiplex", "multiplex-whole", TOGETHER),
        Row("engine", "the engine alone", Kind.ENGINE, "none", "none"),
        Row("sdk", "AsyncClient", Kind.DOHERTY, "sdk", None, with_sdk=True),
        Row("sdk-multiplex", "AsyncClient(multiplex=True)", Kind.DOHERTY, "sdk-multiplex", None, with_sdk=True),
    )
}

MAIN_ROWS = ("stream", "multiplex", "naive", "sse", "callback", "vllm-rs", "vllm-rs-shared")
ENGINE_ROW = "engine"
BEFORE = "-before"
"""What the name of a row of the other checkout ends with."""
BEFORE_ROWS = tuple(name for name in ROWS if name.endswith(BEFORE))
SIDE_ROWS = ("sdk", "sdk-multiplex")
"""Those that are compared at one load alone."""
SIDE_LOAD = "32x200"
