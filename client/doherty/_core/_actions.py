"""The actions that a call requests from its client.

A call is a generator of actions. It decides what to send, when to pause, which server to use next and what to raise,
and does no I/O. The client performs each action and sends the result back into the generator.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from doherty._core._balance import Target
    from doherty._core._metadata import Pairs
    from doherty._core._results import RawMetadata
    from doherty._core._unreachable import Address

ResultT = TypeVar("ResultT")

KeySource = Callable[[], str | Awaitable[str]]
"""Returns the key for one attempt."""

Rpc = Literal["Generate", "StreamGenerate", "CountTokens", "GetModel", "GetLatency", "Check"]
"""The method of the contract, or `Check` of the health service."""


class Send(NamedTuple):
    """Send a request.

    The result is the reply, or the exception that gRPC raised. A StreamGenerate is only started: the result is None,
    or the exception.
    """

    rpc: Rpc
    target: "Target"
    request: "Message"
    timeout: float | None
    """In seconds; None means no deadline."""
    metadata: "Pairs"
    shared: "Pairs"
    """The part of the metadata that all calls of the client have. An RPC that carries many requests has only this."""
    alone: bool = False
    """Whether the request needs its own RPC, because its metadata differs from that of other calls."""
    on_metadata: "Callable[[RawMetadata, RawMetadata], None] | None" = None
    """Called with the initial and the trailing metadata of a reply; None if nobody needs them."""


class Receive:
    """Read the messages of the started StreamGenerate until it ends.

    The result is the exception that gRPC raised, or None if the server ended the stream.
    """


class Pause(NamedTuple):
    """Wait, unless the client or the stream is closed in the meantime. The result is whether that happened."""

    seconds: float


class FetchKey(NamedTuple):
    """Ask the caller for the API key. The result is what the callable returned, or the exception that it raised."""

    source: KeySource
    timeout: float | None
    """Maximum wait in seconds, for clients that can interrupt the callable; None means no limit."""


class AskForTls(NamedTuple):
    """Find out what a server expects of TLS. The result is a TlsUse, or a ClientClosedError.

    It is None if the server did not answer in time.
    """

    address: "Address"
    seconds: float


Action = Send | Receive | Pause | FetchKey | AskForTls

Actions = Generator[Action, Any, ResultT]
"""A call: a generator that yields actions and returns the result."""


def next_action(actions: Actions[None], result: object) -> Action | None:
    """Sends the result of the last action to a call, and returns its next action; None if there is none."""
    try:
        return actions.send(result)
    except StopIteration:
        return None
