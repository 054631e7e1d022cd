"""Encodes the messages of answers.

gRPC gets all messages as bytes. A delta in the middle of an answer (one per token) is encoded by hand, because that is
faster; tests/service/test_replies.py compares the result with protobuf's.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING

from doherty.v1 import answer_pb2
from doherty.v1 import generation_service_pb2 as wire
from doherty_engine import EngineRequest, Finish, FinishReason, ModelInfo, StepOutput, TokenLogprob
from doherty_service.telemetry import RequestRecord

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.rpc.status_pb2 import Status

_FINISH_REASONS = {
    FinishReason.STOP: answer_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: answer_pb2.FINISH_REASON_LENGTH,
    FinishReason.TIME_LIMIT: answer_pb2.FINISH_REASON_TIME_LIMIT,
}

# Tags on the wire: the number of the field shifted left by 3, plus 0 for a varint or 2 for length-delimited bytes.
_RESPONSE_DELTA = b"\x12"  # StreamGenerateResponse.delta = 2
_DELTA_TEXT = b"\x0a"  # Delta.text = 1
_DELTA_TOKEN_IDS = b"\x12"  # Delta.token_ids = 2, packed
_DELTA_TOKEN_COUNT = b"\x18"  # Delta.token_count = 3
_PART = b"\x0a"  # MultiplexGenerateResponse.parts = 1
_PART_ID = b"\x08"  # MultiplexPart.id = 1
_PART_RESPONSE = b"\x12"  # MultiplexPart.response = 2

_SLICE_LOGPROBS = 1000
"""The approximate number of log probabilities that are encoded in one slice, of about a millisecond."""

_SECOND = 1_000_000_000
"""In nanoseconds."""

_ONE_BYTE = 128
_VARINTS = [bytes([number]) for number in range(_ONE_BYTE)]


def stream_message(
    output: StepOutput, record: RequestRecord, model: ModelInfo, request: EngineRequest, *, is_first: bool
) -> bytes:
    """The StreamGenerateResponse for an output; empty if there is nothing to send.

    The start is sent together with the first delta.
    """
    finish = output.finish
    has_delta = bool(output.token_count or output.text)
    if finish is None and not is_first and has_delta and not output.logprobs:
        return delta_message(output)
    if not has_delta and finish is None:
        return b""
    reply = wire.StreamGenerateResponse()
    if is_first:
        _put_start(reply.start, record, model)
    if has_delta:
        delta = reply.delta
        delta.text = output.text
        delta.token_count = output.token_count
        if output.token_ids:
            delta.token_ids.extend(output.token_ids)
        if output.logprobs:
            delta.logprobs.extend(_token_logprobs(output.logprobs))
    if finish is not None:
        _put_summary(reply.summary, finish, request, record, model)
    return reply.SerializeToString()


def delta_message(output: StepOutput) -> bytes:
    """The StreamGenerateResponse for an output that has only tokens, without log probabilities."""
    text = output.text.encode()
    size = len(text)
    body = _DELTA_TEXT + (_VARINTS[size] if size < _ONE_BYTE else _varint(size)) + text if text else b""
    if output.token_ids:
        ids = b"".join(map(_varint, output.token_ids))
        body += _DELTA_TOKEN_IDS + _varint(len(ids)) + ids
    count = output.token_count
    if count:
        body += _DELTA_TOKEN_COUNT + (_VARINTS[count] if count < _ONE_BYTE else _varint(count))
    size = len(body)
    return _RESPONSE_DELTA + (_VARINTS[size] if size < _ONE_BYTE else _varint(size)) + body


def whole_message(
    output: StepOutput, record: RequestRecord, model: ModelInfo, request: EngineRequest
) -> Generator[None, None, bytes]:
    """Makes the GenerateResponse of a whole answer.

    A generator that yields after each slice of work, because a long answer may have many log probabilities.
    """
    if output.finish is None:
        raise AssertionError("the answer has not ended")
    reply = wire.GenerateResponse(text=output.text, token_ids=output.token_ids or ())
    _put_start(reply.start, record, model)
    _put_summary(reply.summary, output.finish, request, record, model)
    message = reply.SerializeToString()
    if output.logprobs:
        logprobs = yield from _logprob_fields(output.logprobs, request)
        return b"".join((message, *logprobs))
    return message


def whole_stream_message(
    output: StepOutput, record: RequestRecord, model: ModelInfo, request: EngineRequest
) -> Generator[None, None, bytes]:
    """Makes the single StreamGenerateResponse of an answer that is sent as a whole; yields like `whole_message`."""
    if output.finish is None:
        raise AssertionError("the answer has not ended")
    reply = wire.StreamGenerateResponse()
    _put_start(reply.start, record, model)
    _put_summary(reply.summary, output.finish, request, record, model)
    if not output.token_count and not output.text:
        return reply.SerializeToString()
    delta = answer_pb2.Delta(text=output.text, token_count=output.token_count, token_ids=output.token_ids or ())
    logprobs = yield from _logprob_fields(output.logprobs or (), request)
    # One field `delta`, because some libraries do not merge a message field that occurs twice.
    fields = [delta.SerializeToString(), *logprobs]
    return b"".join((_RESPONSE_DELTA, _varint(sum(map(len, fields))), *fields, reply.SerializeToString()))


def _logprob_fields(logprobs: tuple[TokenLogprob, ...], request: EngineRequest) -> Generator[None, None, list[bytes]]:
    """Encodes the field `logprobs`, in pieces to be joined. It has the same number in GenerateResponse and Delta."""
    size = max(1, _SLICE_LOGPROBS // (1 + (request.top_logprobs or 0)))
    pieces: list[bytes] = []
    for start in range(0, len(logprobs), size):
        if start:
            yield
        pieces.append(answer_pb2.Delta(logprobs=_token_logprobs(logprobs[start : start + size])).SerializeToString())
    return pieces


def multiplex_part(identifier: int, message: bytes) -> bytes:
    """A MultiplexGenerateResponse with one StreamGenerateResponse. Joined, such messages are one with several parts."""
    size = len(message)
    body = _PART_ID + _varint(identifier) + _PART_RESPONSE + (_VARINTS[size] if size < _ONE_BYTE else _varint(size))
    size += len(body)
    return b"".join((_PART, _VARINTS[size] if size < _ONE_BYTE else _varint(size), body, message))


def multiplex_admission(identifier: int, request_id: str) -> bytes:
    """A MultiplexGenerateResponse with one part, which says that a request was admitted."""
    reply = wire.MultiplexGenerateResponse()
    reply.parts.add(id=identifier).admission.request_id = request_id
    return reply.SerializeToString()


def multiplex_failure(identifier: int, status: "Status", record: RequestRecord) -> bytes:
    """A MultiplexGenerateResponse with the status of one failed request."""
    reply = wire.MultiplexGenerateResponse()
    part = reply.parts.add(id=identifier, status=status)
    _put_timings(part.timings, record)
    return reply.SerializeToString()


def _varint(number: int) -> bytes:
    """Encodes a number like protobuf: seven bits per byte, lowest first; the high bit means that more bytes follow."""
    if number < _ONE_BYTE:
        return _VARINTS[number]
    encoded = bytearray()
    while number >= _ONE_BYTE:
        encoded.append(number % _ONE_BYTE + _ONE_BYTE)
        number //= _ONE_BYTE
    encoded.append(number)
    return bytes(encoded)


def _put_start(message: answer_pb2.Start, record: RequestRecord, model: ModelInfo) -> None:
    message.request_id, message.model = record.request_id, model.model
    message.prompt_tokens = record.prompt_tokens or 0


def _token_logprobs(logprobs: tuple[TokenLogprob, ...]) -> list[answer_pb2.TokenLogprob]:
    return [
        answer_pb2.TokenLogprob(
            token_id=token.token_id,
            token=token.token,
            logprob=token.logprob,
            top=[
                answer_pb2.TopLogprob(token_id=other.token_id, token=other.token, logprob=other.logprob)
                for other in token.top
            ],
        )
        for token in logprobs
    ]


def _put_timings(message: answer_pb2.Timings, record: RequestRecord) -> None:
    for name, seconds in record.spans():
        span: Duration = getattr(message, name)
        nanos = round(seconds * 1e9)
        if nanos < _SECOND:
            span.nanos = nanos
        else:
            span.seconds, span.nanos = divmod(nanos, _SECOND)


def _put_summary(
    message: answer_pb2.Summary, finish: Finish, request: EngineRequest, record: RequestRecord, model: ModelInfo
) -> None:
    message.finish_reason = _FINISH_REASONS[finish.reason]
    usage = message.usage
    usage.prompt_tokens, usage.output_tokens = record.prompt_tokens or 0, finish.output_tokens
    if finish.cached_tokens is not None:
        usage.cached_tokens = finish.cached_tokens
    _put_timings(message.timings, record)
    if finish.stop_text is not None:
        message.stop_text = finish.stop_text
    if finish.stop_token_id is not None:
        message.stop_token_id = finish.stop_token_id
    if request.sampling.temperature > 0 and "sampling.seed" in model.features:
        message.seed = request.sampling.seed
    if finish.speculation is not None:
        message.speculation.steps = finish.speculation.steps
        message.speculation.draft_tokens = finish.speculation.draft_tokens
        message.speculation.accepted_tokens = finish.speculation.accepted_tokens
