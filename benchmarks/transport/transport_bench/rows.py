"""Which servers are compared, and how each is called."""

from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """A server, as a program."""

    DOHERTY = auto()
    """With keys, metrics and all interceptors."""
    BARE = auto()
    """The same without interceptors."""
    NAIVE = auto()
    SSE = auto()
    CALLBACK = auto()


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
"""How many requests share an RPC of MultiplexGenerate."""

ROWS = {
    row.name: row
    for row in (
        Row("stream", "StreamGenerate", Kind.DOHERTY, "stream", "generate", whole_title="Generate"),
        Row("multiplex", "MultiplexGenerate", Kind.DOHERTY, "multiplex", "multiplex-whole", TOGETHER),
        Row("naive", "naive grpc.aio", Kind.NAIVE, "stream", "generate"),
        Row("sse", "FastAPI + uvicorn SSE", Kind.SSE, "sse", None),
        Row("callback", "C++ grpc++ callback", Kind.CALLBACK, "stream", "generate"),
        Row("stream-bare", "StreamGenerate, all off", Kind.BARE, "stream", None),
        Row("multiplex-bare", "MultiplexGenerate, all off", Kind.BARE, "multiplex", None, TOGETHER),
        Row("sdk", "AsyncClient", Kind.DOHERTY, "sdk", None, with_sdk=True),
        Row("sdk-multiplex", "AsyncClient(multiplex=True)", Kind.DOHERTY, "sdk-multiplex", None, with_sdk=True),
    )
}

MAIN_ROWS = ("stream", "multiplex", "naive", "sse", "callback")
SIDE_ROWS = ("stream-bare", "multiplex-bare", "sdk", "sdk-multiplex")
"""Those that are compared at one load alone."""
SIDE_LOAD = "32x200"
