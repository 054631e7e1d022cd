"""Converts the messages of an answer to the dataclasses of the SDK."""

import math
import struct
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.duration_pb2 import Duration

from doherty._core._results import FinishReason, Generation, ReplyMetadata, Timings, Usage
from doherty.v1 import answer_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

    from doherty._core._details import Speculation, TokenLogprob
    from doherty.v1 import generation_service_pb2

_FLOAT: Final = struct.Struct("f")

_ENOUGH_DIGITS: Final = 9
"""Enough digits to distinguish any two 32-bit floats."""

FINISH_REASONS: Final = {
    answer_pb2.FINISH_REASON_STOP: FinishReason.STOP,
    answer_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    answer_pb2.FINISH_REASON_TIME_LIMIT: FinishReason.TIME_LIMIT,
}


def seconds(duration: Duration) -> float:
    """Converts a duration to seconds."""
    return duration.seconds + duration.nanos / 1e9


def logprobs_from_wire(logprobs: "Sequence[answer_pb2.TokenLogprob]") -> "tuple[TokenLogprob, ...] | None":
    """Converts log probabilities; returns None if there are none."""
    if not logprobs:
        return None
    from doherty._core._details import TokenLogprob, TopLogprob  # noqa: PLC0415 - few calls ask for them

    return tuple(
        TokenLogprob(
            token.token_id,
            token.token,
            token.logprob,
            tuple(TopLogprob(top.token_id, top.token, top.logprob) for top in token.top),
        )
        for token in logprobs
    )


def generation_from_reply(
    reply: "generation_service_pb2.GenerateResponse", elapsed: float | None, metadata: ReplyMetadata
) -> Generation[None]:
    """Converts the reply of Generate. `elapsed` is the duration of the call in seconds; None after a retry."""
    return generation_from_parts(
        reply.start,
        reply.summary,
        elapsed,
        metadata=metadata,
        text=reply.text,
        token_ids=tuple(reply.token_ids) or None,
        logprobs=logprobs_from_wire(reply.logprobs),
    )


def generation_from_parts(  # noqa: PLR0913 - the parts of an answer
    start: answer_pb2.Start,
    summary: answer_pb2.Summary,
    elapsed: float | None,
    *,
    metadata: ReplyMetadata,
    text: str,
    token_ids: tuple[int, ...] | None,
    logprobs: "tuple[TokenLogprob, ...] | None",
) -> Generation[None]:
    """Creates an answer from its first part (`start`), its last part (`summary`), and the text between them."""
    timings, usage = timings_from_wire(summary.timings), summary.usage
    return Generation(
        text=text,
        parsed=None,
        token_ids=token_ids,
        logprobs=logprobs,
        finish_reason=finish_reason(summary),
        stop_text=summary.stop_text if summary.HasField("stop_text") else None,
        stop_token_id=summary.stop_token_id if summary.HasField("stop_token_id") else None,
        usage=Usage(
            usage.prompt_tokens,
            usage.output_tokens,
            usage.cached_tokens if usage.HasField("cached_tokens") else None,
        ),
        timings=timings,
        # The totals come from two clocks, so a negative difference is measurement error.
        network=None if timings.total is None or elapsed is None else max(0.0, elapsed - timings.total),
        request_id=start.request_id,
        model=start.model,
        seed=summary.seed if summary.HasField("seed") else None,
        speculation=_speculation(summary),
        metadata=metadata,
    )


def finish_reason(summary: answer_pb2.Summary) -> FinishReason:
    """Converts the finish reason."""
    return FINISH_REASONS.get(summary.finish_reason, FinishReason.OTHER)


def timings_from_wire(timings: answer_pb2.Timings) -> Timings:
    """Converts the server's timings."""
    # Every answer has these, so they are read as cheaply as possible.
    has = timings.HasField
    return Timings(
        preprocess=seconds(timings.preprocess) if has("preprocess") else None,
        queue=seconds(timings.queue) if has("queue") else None,
        time_to_first_token=seconds(timings.time_to_first_token) if has("time_to_first_token") else None,
        time_to_last_token=seconds(timings.time_to_last_token) if has("time_to_last_token") else None,
        total=seconds(timings.total) if has("total") else None,
        time_per_output_token=seconds(timings.time_per_output_token) if has("time_per_output_token") else None,
    )


def timings_from_header(header: str | bytes | None) -> Timings | None:
    """Reads the server's timings from the trailing metadata `server-timing`, which failed calls also have."""
    if not isinstance(header, str):
        return None
    spans = {}
    for metric in header.split(","):
        name, _, parameter = metric.strip().partition(";dur=")
        try:
            spans[name] = float(parameter) / 1000
        except ValueError:
            # A proxy may add metrics without `dur`, as W3C allows.
            continue
    return Timings(**{field: spans.get(field) for field in Timings.__dataclass_fields__})


def _speculation(summary: answer_pb2.Summary) -> "Speculation | None":
    if not summary.HasField("speculation"):
        return None
    from doherty._core._details import Speculation  # noqa: PLC0415 - few engines speculate

    speculation = summary.speculation
    return Speculation(speculation.steps, speculation.draft_tokens, speculation.accepted_tokens)


def optional(message: "Message", field: str) -> Any:
    """Returns the value of a field with presence, a duration in seconds; None if it is not set."""
    if not message.HasField(field):
        return None
    value = getattr(message, field)
    if isinstance(value, Duration):
        return seconds(value)
    descriptor = message.DESCRIPTOR.fields_by_name[field]
    return _shortest_decimal(value) if descriptor.type == descriptor.TYPE_FLOAT else value


def _shortest_decimal(value: float) -> float:
    """Returns the shortest decimal for a 32-bit float: 0.9 instead of its exact value 0.89999998."""
    if not math.isfinite(value):
        return value
    decimals = (float(f"{value:.{digits}g}") for digits in range(6, _ENOUGH_DIGITS + 1))
    return next((decimal for decimal in decimals if _FLOAT.unpack(_FLOAT.pack(decimal))[0] == value), value)
