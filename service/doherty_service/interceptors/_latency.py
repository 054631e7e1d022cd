"""Measures every RPC to its terminal status: trailing metadata, rolling window, counters and the log line."""

import asyncio
import logging
from array import array
from typing import Any

import grpc
import grpc.aio

from doherty_service.interceptors._errors import UntoldError
from doherty_service.interceptors._handlers import Around, Behavior, CallContext, Method
from doherty_service.latency import AbortCause, Call, LatencyRecorder, current_call

_log = logging.getLogger("doherty.request")
_OWN_SERVICES = "/doherty."
_CLOCK_SLACK = 0.05
"""Seconds. A caller whose deadline passes resets the call, and its clock may be ahead of ours."""


class LatencyInterceptor(Around):
    """Takes note of how every RPC ended and how long it took; it has no part in the messages between."""

    def __init__(self, recorder: LatencyRecorder) -> None:
        """Every call goes to `recorder` once it has ended."""
        self._recorder = recorder

    def wrap(self, behavior: Behavior, method: Method) -> Behavior:  # noqa: ARG002 - the call knows its method
        """Runs the behavior, and takes note of its end."""

        async def measured(request: Any, context: CallContext) -> Any:
            call = current_call()
            code = grpc.StatusCode.UNKNOWN
            deadline = context.time_remaining()
            try:
                reply = await behavior(request, context)
            except UntoldError:
                code = _status_code(context)
                raise asyncio.CancelledError from None  # the one end that gRPC does not report as a fault of ours
            except grpc.aio.AbortError:
                code = _status_code(context)
                raise
            except (asyncio.CancelledError, GeneratorExit):
                code = self._cancelled(call, context)
                raise
            except grpc.aio.InternalError:
                # Its caller went away during a write; gRPC would log that as an error, with its stack.
                code = self._cancelled(call, context)
                raise asyncio.CancelledError from None
            else:
                code = grpc.StatusCode.OK
                if timing := call.server_timing():
                    context.set_trailing_metadata((("server-timing", timing),))
                return reply
            finally:
                call.status = code.name
                call.gaps = array("d", sorted(call.gaps))  # once for all who count them
                self._recorder.finish(call)
                _log_call(call, context.peer(), deadline)

        return measured

    @staticmethod
    def _cancelled(call: Call, context: CallContext) -> grpc.StatusCode:
        late = _deadline_passed(context.time_remaining())
        if call.is_answer and call.summarized is None and call.abort_cause is None:
            call.abort_cause = AbortCause.DEADLINE if late else AbortCause.CANCELLED
        return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED


def _deadline_passed(remaining: float | None) -> bool:
    """Whether there was a deadline and it is over; without one, grpc.aio says None, whatever its types say."""
    return remaining is not None and remaining <= _CLOCK_SLACK


def _status_code(context: CallContext) -> grpc.StatusCode:
    """The code of an aborted call, which grpc.aio keeps as a number or as the enum's member."""
    code: Any = context.code()
    if isinstance(code, grpc.StatusCode):
        return code
    return next(member for member in grpc.StatusCode if member.value[0] == code)


def _log_call(call: Call, peer: str, deadline: float | None) -> None:
    """Writes the one line of a call; health checks and reflection only when debugging."""
    level = logging.INFO if call.method.startswith(_OWN_SERVICES) else logging.DEBUG
    if not _log.isEnabledFor(level):
        return
    fields: dict[str, object] = {
        "rpc": call.method.rpartition("/")[2],
        **call.names,
        "code": call.status,
        "peer": peer,
    }
    told = {
        "reason": call.reason,
        "abort_cause": call.abort_cause and call.abort_cause.label,
        "key": call.key_name,
        "finish_reason": call.finish_reason,
    }
    fields |= {name: text for name, text in told.items() if text}
    if call.prompt_tokens is not None:
        fields |= {"prompt_tokens": call.prompt_tokens, "output_tokens": call.output_tokens}
    if call.cached_tokens is not None:
        fields["cached_tokens"] = call.cached_tokens
    if deadline is not None:
        fields["deadline_ms"] = _ms(deadline)
    fields |= {f"{name}_ms": round(seconds * 1000, 3) for name, seconds in call.spans()}
    if call.engine_time_to_first_token is not None:
        fields["engine_time_to_first_token_ms"] = _ms(call.engine_time_to_first_token)
    if call.gaps:
        fields |= {
            "inter_token_p50_ms": _ms(call.gaps[(len(call.gaps) - 1) // 2]),
            "inter_token_max_ms": _ms(call.gaps[-1]),
        }
    fields["duration_ms"] = _ms(call.elapsed())
    _log.log(level, "request", extra={"fields": fields})


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
