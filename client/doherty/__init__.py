"""The Python SDK for Doherty, an LLM server over gRPC.

    from doherty import Client

    with Client("localhost:50051") as client:
        print(client.generate("What atoms are in water?"))

`AsyncClient` is the same for asyncio. Importing this package is cheap: a name is loaded when it is first used, so that
a server that needs `doherty.v1` alone does not load the SDK.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from doherty._version import __version__

if TYPE_CHECKING:
    from doherty._aio._client import AsyncClient
    from doherty._aio._map import AsyncMap
    from doherty._aio._stream import AsyncGenerationStream
    from doherty._core._deployment import (
        EndedRequests,
        KeyRefusals,
        KeyRequests,
        Latency,
        Limits,
        ModelInfo,
        Outcome,
        Quantiles,
        SamplingDefaults,
    )
    from doherty._core._details import Speculation, TokenLogprob, TopLogprob
    from doherty._core._errors import (
        AuthenticationError,
        CancelledByServerError,
        ClientClosedError,
        DeadlineExceededError,
        DohertyError,
        EventLoopError,
        FieldViolation,
        ForkError,
        InternalError,
        InvalidRequestError,
        NotFoundError,
        OverloadedError,
        ParseError,
        PermissionDeniedError,
        RpcError,
        StreamError,
        UnavailableError,
        UnsupportedError,
    )
    from doherty._core._events import ServerLost, StreamEvent, StreamFinished, StreamResumed, StreamStarted
    from doherty._core._health import Health
    from doherty._core._map import MapResult
    from doherty._core._metadata import Metadata
    from doherty._core._options import GenerateOptions
    from doherty._core._prompt import Message, Prompt, RawText, Role, TokenIds
    from doherty._core._results import Delta, FinishReason, Generation, ReplyMetadata, Timings, Usage
    from doherty._core._retry import RetryPolicy
    from doherty._core._settings import NOT_GIVEN, NotGiven
    from doherty._core._tls import TLSConfig
    from doherty._sync._client import Client
    from doherty._sync._stream import GenerationStream

__all__ = [
    "NOT_GIVEN",
    "AsyncClient",
    "AsyncGenerationStream",
    "AsyncMap",
    "AuthenticationError",
    "CancelledByServerError",
    "Client",
    "ClientClosedError",
    "DeadlineExceededError",
    "Delta",
    "DohertyError",
    "EndedRequests",
    "EventLoopError",
    "FieldViolation",
    "FinishReason",
    "ForkError",
    "GenerateOptions",
    "Generation",
    "GenerationStream",
    "Health",
    "InternalError",
    "InvalidRequestError",
    "KeyRefusals",
    "KeyRequests",
    "Latency",
    "Limits",
    "MapResult",
    "Message",
    "Metadata",
    "ModelInfo",
    "NotFoundError",
    "NotGiven",
    "Outcome",
    "OverloadedError",
    "ParseError",
    "PermissionDeniedError",
    "Prompt",
    "Quantiles",
    "RawText",
    "ReplyMetadata",
    "RetryPolicy",
    "Role",
    "RpcError",
    "SamplingDefaults",
    "ServerLost",
    "Speculation",
    "StreamError",
    "StreamEvent",
    "StreamFinished",
    "StreamResumed",
    "StreamStarted",
    "TLSConfig",
    "Timings",
    "TokenIds",
    "TokenLogprob",
    "TopLogprob",
    "UnavailableError",
    "UnsupportedError",
    "Usage",
    "__version__",
]

_NAMES = {
    "doherty._aio._client": ("AsyncClient",),
    "doherty._aio._map": ("AsyncMap",),
    "doherty._aio._stream": ("AsyncGenerationStream",),
    "doherty._core._deployment": (
        "EndedRequests",
        "KeyRefusals",
        "KeyRequests",
        "Latency",
        "Limits",
        "ModelInfo",
        "Outcome",
        "Quantiles",
        "SamplingDefaults",
    ),
    "doherty._core._details": ("Speculation", "TokenLogprob", "TopLogprob"),
    "doherty._core._errors": (
        "AuthenticationError",
        "CancelledByServerError",
        "ClientClosedError",
        "DeadlineExceededError",
        "DohertyError",
        "EventLoopError",
        "FieldViolation",
        "ForkError",
        "InternalError",
        "InvalidRequestError",
        "NotFoundError",
        "OverloadedError",
        "ParseError",
        "PermissionDeniedError",
        "RpcError",
        "StreamError",
        "UnavailableError",
        "UnsupportedError",
    ),
    "doherty._core._events": ("ServerLost", "StreamEvent", "StreamFinished", "StreamResumed", "StreamStarted"),
    "doherty._core._health": ("Health",),
    "doherty._core._map": ("MapResult",),
    "doherty._core._metadata": ("Metadata",),
    "doherty._core._options": ("GenerateOptions",),
    "doherty._core._prompt": ("Message", "Prompt", "RawText", "Role", "TokenIds"),
    "doherty._core._results": (
        "Delta",
        "FinishReason",
        "Generation",
        "ReplyMetadata",
        "Timings",
        "Usage",
    ),
    "doherty._core._retry": ("RetryPolicy",),
    "doherty._core._settings": ("NOT_GIVEN", "NotGiven"),
    "doherty._core._tls": ("TLSConfig",),
    "doherty._sync._client": ("Client",),
    "doherty._sync._stream": ("GenerationStream",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
