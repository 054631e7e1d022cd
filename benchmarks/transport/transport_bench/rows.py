"""The compared servers, and the ways to call them."""

from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """A server program."""

    DOHERTY = auto()
    """Doherty, with keys, metrics and the log of requests."""
    HTTP2 = auto()
    """The same on the transport http2."""
    BEFORE = auto()
    """Doherty from another checkout."""
    HTTP2_BEFORE = auto()
    """The same on the transport http2."""
    NAIVE = auto()
    SSE = auto()
    CALLBACK = auto()
    VLLM = auto()
    """vLLM's front-end in Rust, with a stand-in for vLLM's engine process."""
    ENGINE = auto()
    """No server: only the synthetic engine, under the same load."""


OTHER_CHECKOUT = frozenset({Kind.BEFORE, Kind.HTTP2_BEFORE})
"""Doherty's servers from another checkout."""
OURS = OTHER_CHECKOUT | {Kind.DOHERTY, Kind.HTTP2}
"""All of Doherty's servers."""


@dataclass(frozen=True)
class Row:
    """A server, and the way to call it."""

    name: str
    title: str
    kind: Kind
    protocol: str
    """The load generator's protocol."""
    whole_protocol: str | None
    """The protocol for unary answers; None means that there is no such row."""
    per_connection: int = 1
    with_sdk: bool = False
    """Whether the SDK calls the server, instead of the load generator."""
    whole_title: str = ""
    """The title for unary answers; empty means the same title."""


TOGETHER = 8
"""The number of requests that share an RPC of MultiplexGenerate and its connection (with vLLM's front-end, only the
connection)."""

ROWS = {
    row.name: row
    for row in (
        Row("stream", "StreamGenerate", Kind.DOHERTY, "stream", "generate", whole_title="Generate"),
        Row("multiplex", "MultiplexGenerate", Kind.DOHERTY, "multiplex", "multiplex-whole", TOGETHER),
        Row("http2", "StreamGenerate, http2", Kind.HTTP2, "stream", "generate", whole_title="Generate, http2"),
        Row(
            "http2-multiplex",
            "MultiplexGenerate, http2",
            Kind.HTTP2,
            "multiplex",
            "multiplex-whole",
            TOGETHER,
        ),
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
        Row(
            "http2-before",
            "StreamGenerate before, http2",
            Kind.HTTP2_BEFORE,
            "stream",
            "generate",
            whole_title="Generate before, http2",
        ),
        Row("engine", "the engine alone", Kind.ENGINE, "none", "none"),
        Row("sdk", "AsyncClient", Kind.DOHERTY, "sdk", None, with_sdk=True),
        Row("sdk-multiplex", "AsyncClient(multiplex=True)", Kind.DOHERTY, "sdk-multiplex", None, with_sdk=True),
    )
}

MAIN_ROWS = ("stream", "multiplex", "http2", "http2-multiplex", "naive", "sse", "callback", "vllm-rs", "vllm-rs-shared")
ENGINE_ROW = "engine"
BEFORE = "-before"
"""The suffix of the rows of the other checkout."""
BEFORE_ROWS = tuple(name for name in ROWS if name.endswith(BEFORE))
SIDE_ROWS = ("sdk", "sdk-multiplex")
"""Rows that are measured at one load only."""
SIDE_LOAD = "32x200"
