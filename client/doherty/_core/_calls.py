"""The unary calls, with their retries."""

from time import perf_counter
from typing import TYPE_CHECKING, Any

from doherty._core._actions import Actions, Pause, Rpc
from doherty._core._dispatch import Dispatch, start_trace
from doherty._core._errors import DohertyError
from doherty._core._from_wire import generation_from_reply
from doherty._core._request import count_request, latency_request
from doherty._core._resume import shortened
from doherty._core._settings import check_options
from doherty.v1.model_pb2 import GetModelRequest

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from doherty._core._deployment import Latency, ModelInfo
    from doherty._core._prompt import TextPrompt
    from doherty._core._request import PlannedRequest
    from doherty._core._results import Generation
    from doherty._core._retry import CallAttempts
    from doherty._core._settings import CallParameters


def generate(dispatch: Dispatch, planned: "PlannedRequest") -> "Actions[Generation[Any]]":
    """Requests a whole answer."""
    attempts = dispatch.begin_call(planned.options)
    started = perf_counter()
    with start_trace(planned.request, stream=False) as attempts.trace:
        reply = yield from _call(dispatch, "Generate", planned.request, attempts)
        attempts.trace.complete(reply.start, reply.summary)
    elapsed = perf_counter() - started if attempts.count == 1 else None
    return planned.parse(generation_from_reply(reply, elapsed, attempts.reply_metadata))


def count_tokens(
    dispatch: Dispatch, prompt: "TextPrompt", system: str | None, model: str | None, options: "CallParameters"
) -> Actions[int]:
    """Requests the number of tokens of a prompt."""
    request = count_request(prompt, system=system, model=model)
    reply = yield from _call(dispatch, "CountTokens", request, dispatch.begin_call(check_options(**options)))
    return int(reply.prompt_tokens)


def model(dispatch: Dispatch, options: "CallParameters") -> "Actions[ModelInfo]":
    """Requests the description of a deployment."""
    from doherty._core._deployment_from_wire import model_from_wire  # noqa: PLC0415 - most programs never ask

    attempts = dispatch.begin_call(check_options(**options))
    return model_from_wire((yield from _call(dispatch, "GetModel", GetModelRequest(), attempts)))


def latency(dispatch: Dispatch, window: float | None, options: "CallParameters") -> "Actions[Latency]":
    """Requests the latency of a server over the last `window` seconds."""
    from doherty._core._deployment_from_wire import latency_from_wire  # noqa: PLC0415 - most programs never ask

    request = latency_request(window)
    attempts = dispatch.begin_call(check_options(**options))
    return latency_from_wire((yield from _call(dispatch, "GetLatency", request, attempts)))


def _call(dispatch: Dispatch, rpc: Rpc, request: "Message", attempts: "CallAttempts") -> Actions[Any]:
    while True:
        target = yield from dispatch.begin_attempt(attempts)
        try:
            reply = yield dispatch.send(rpc, target, shortened(request, attempts), attempts)
            if not isinstance(reply, BaseException):
                if rpc == "Generate":
                    attempts.log.request_id = reply.start.request_id
                attempts.log.succeed()
                dispatch.targets.worked(target)
                attempts.succeeded()
                return reply
            pause = yield from dispatch.after(reply, target, attempts)
        finally:
            dispatch.targets.end(target)
        if isinstance(pause, DohertyError):
            try:
                raise pause from reply
            finally:
                del pause, reply  # the error's traceback refers to this frame
        yield Pause(pause)
