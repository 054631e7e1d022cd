"""The requests of the second and later attempts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from google.protobuf.message import Message

from doherty.v1.request_pb2 import GenerateRequest

if TYPE_CHECKING:
    from doherty._core._retry import CallAttempts

_RequestT = TypeVar("_RequestT", bound=Message)

_SHORTEST_NANOSECONDS: Final = 1_000_000
"""The time limit to send if no time is left. The server then answers with a summary immediately."""


def resumed_request(
    request: GenerateRequest, *, token_ids: Sequence[int] | None, text: str, request_id: str, model: str
) -> GenerateRequest | None:
    """Returns the request for the rest of an answer that was cut off.

    Args:
        request: The first request. It may contain a `continue_from` of the caller.
        token_ids: The ids of the tokens that were received; None if not all are known.
        text: The text that was received.
        request_id: The id in the first server's log, so that the two logs can be joined.
        model: The model that answered. No other model may continue the answer.

    Returns:
        None if only the ids of the beginning and only the text of the end are known.
    """
    resumed = GenerateRequest()
    resumed.CopyFrom(request)
    resumed.request_id, resumed.model = request_id, model
    held = request.continue_from
    if token_ids is not None and not held.text:
        resumed.continue_from.token_ids.extend(token_ids)
    elif text and held.token_ids:
        return None
    elif text:
        resumed.continue_from.text = held.text + text
    return resumed


def shortened(request: _RequestT, attempts: "CallAttempts") -> _RequestT:
    """Returns the request of a call's next attempt. After the first attempt, its time limit is the remaining time."""
    if attempts.count <= 1 or not isinstance(request, GenerateRequest) or not request.stopping.HasField("time_limit"):
        return request
    later = type(request)()
    later.CopyFrom(request)
    remaining = request.stopping.time_limit.ToNanoseconds() - round(attempts.elapsed() * 1e9)
    later.stopping.time_limit.FromNanoseconds(max(remaining, _SHORTEST_NANOSECONDS))
    return later
