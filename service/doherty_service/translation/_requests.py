"""From the wire to validated dataclasses: every field is read here, or refused here."""

import random
import time
from collections.abc import Iterator

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message as WireMessage
from google.protobuf.unknown_fields import UnknownFieldSet

from doherty.v1 import generation_service_pb2, request_pb2
from doherty_engine import EngineRequest, HeldPart, Input, ModelInfo, Stopping, TokenIds
from doherty_service._errors import NotFoundError, UnsupportedFieldError
from doherty_service.admission import Priority, Ticket
from doherty_service.latency import Call
from doherty_service.translation._deployment import Deployment
from doherty_service.translation._fields import check_size, constraint, sampling, text_input
from doherty_service.translation._violations import Violations

SERVER_FEATURES = frozenset({"model", "priority", "request_id"})
"""The paths of the fields that the server honours whatever the engine."""

_GROUPS = frozenset({"constraint", "continue_from", "output", "sampling", "stopping"})
"""The fields that only group others: a feature is a field inside them."""

_PRIORITIES = {
    request_pb2.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    request_pb2.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    request_pb2.PRIORITY_BATCH: Priority.BATCH,
}

_MOST_REQUEST_ID = 128
_MOST_STOP_TEXTS = 16
_LONGEST_STOP_TEXT = 1000
_MOST_STOP_TOKENS = 64
_SEED_BITS = 32
"""Of a seed that the server draws: short enough to be typed again."""


def check_multiplex(wire: generation_service_pb2.MultiplexGenerateRequest, last_id: int) -> None:
    """Makes sure that each request of a message can be told from all others, which began with ids up to `last_id`.

    Raises:
        InvalidRequestError: an id is none that is new.
        UnsupportedFieldError: there is a field of a newer contract.
    """
    _refuse_unknown_here(wire)
    for index, start in enumerate(wire.starts):
        _refuse_unknown_here(start, "starts.")
        violations = Violations()
        violations.check(start.id > last_id, f"starts[{index}].id", f"must be above {last_id}, the one before it")
        violations.raise_if_any()
        last_id = start.id


def take_label(wire: request_pb2.GenerateRequest, call: Call) -> None:
    """Leaves the caller's label on `call`, for the log and whatever error is to come.

    Raises:
        InvalidRequestError: it is none.
    """
    if not wire.request_id:
        return
    violations = Violations()
    violations.check(
        len(wire.request_id) <= _MOST_REQUEST_ID and wire.request_id.isascii() and wire.request_id.isprintable(),
        "request_id",
        f"must be at most {_MOST_REQUEST_ID} printable ASCII characters",
    )
    violations.raise_if_any()
    call.request_id = wire.request_id


def engine_request(
    wire: request_pb2.GenerateRequest, model: ModelInfo, deployment: Deployment, call: Call
) -> EngineRequest:
    """Translates a request.

    Raises:
        InvalidRequestError: fields are wrong; says which, all of them.
        NotFoundError: the model or the adapter is not served.
        UnsupportedFieldError: a field is set that this deployment cannot honour.
    """
    violations = Violations()
    check_size(wire)
    _check_supported(wire, model)
    _check_served(wire, model)
    drawn_seed = random.getrandbits(_SEED_BITS)
    request = EngineRequest(
        key=call.key,
        input=_input(wire, deployment, violations),
        sampling=sampling(wire.sampling, model.default_sampling, deployment, drawn_seed, violations),
        stopping=_stopping(wire.stopping, deployment, call, violations),
        token_ids=wire.output.token_ids,
        top_logprobs=_top_logprobs(wire.output, model, violations),
        constraint=constraint(wire.constraint, violations) if wire.HasField("constraint") else None,
        adapter=wire.adapter,
        held=_held(wire.continue_from, violations),
    )
    violations.check(wire.priority in _PRIORITIES, "priority", "is not a priority that the contract knows")
    violations.raise_if_any()
    return request


def ticket(wire: request_pb2.GenerateRequest, seconds_left: float | None, *, whole: bool, again: bool) -> Ticket:
    """What admission needs to know of a request that `engine_request` has found to be right.

    Args:
        wire: The request.
        seconds_left: Until its caller gives up; None if it never does.
        whole: Whether its caller waits for the whole answer.
        again: Whether its caller says that it has sent it before.
    """
    return Ticket(
        priority=_PRIORITIES[wire.priority],
        size=wire.ByteSize(),
        fingerprint=lambda: _fingerprint(wire),
        deadline=None if seconds_left is None else time.monotonic() + seconds_left,
        whole=whole,
        again=again,
    )


def _fingerprint(wire: request_pb2.GenerateRequest) -> int:
    """The same for a request that is sent again; of its time limit less is left by then."""
    if wire.stopping.HasField("time_limit"):
        unlimited = request_pb2.GenerateRequest()
        unlimited.CopyFrom(wire)
        unlimited.stopping.ClearField("time_limit")
        wire = unlimited
    return hash(wire.SerializeToString(deterministic=True))


def count_tokens_input(
    wire: generation_service_pb2.CountTokensRequest, model: ModelInfo, deployment: Deployment
) -> Input:
    """Translates the input of CountTokens.

    Raises:
        InvalidRequestError: fields are wrong; says which, all of them.
        NotFoundError: the model is not served.
    """
    violations = Violations()
    check_size(wire)
    _refuse_unknown(wire)
    _check_model(wire.model, model)
    content = text_input(wire, deployment, violations)
    violations.raise_if_any()
    return content


def _check_supported(wire: request_pb2.GenerateRequest, model: ModelInfo) -> None:
    """A field that is set and not honoured is refused, also one that only a newer contract knows."""
    for path in _paths_set(wire):
        if path not in model.features and path not in SERVER_FEATURES:
            raise UnsupportedFieldError(path)
    _refuse_unknown(wire)


def _refuse_unknown_here(wire: WireMessage, prefix: str = "") -> None:
    unknown = UnknownFieldSet(wire)
    if len(unknown):
        number = unknown[0].field_number
        raise UnsupportedFieldError(f"{prefix}{number}", "this server's contract has no field of this number")


def _refuse_unknown(wire: WireMessage, prefix: str = "") -> None:
    _refuse_unknown_here(wire, prefix)
    for field, value in wire.ListFields():
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            continue
        for part in (value,) if isinstance(value, WireMessage) else value:
            _refuse_unknown(part, f"{prefix}{field.name}.")


def _paths_set(wire: WireMessage, prefix: str = "") -> Iterator[str]:
    """The paths of all fields that a request sets, as GetModelResponse.features spells them."""
    for field, value in wire.ListFields():
        if not prefix and field.name in _GROUPS:
            yield from _paths_set(value, f"{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def _check_served(wire: request_pb2.GenerateRequest, model: ModelInfo) -> None:
    _check_model(wire.model, model)
    if wire.adapter and wire.adapter not in model.adapters:
        served = ", ".join(model.adapters) or "none"
        raise NotFoundError("ADAPTER_NOT_FOUND", f"there is no adapter {wire.adapter!r}; this server has {served}")


def _check_model(name: str, model: ModelInfo) -> None:
    if name and name != model.model:
        raise NotFoundError("MODEL_NOT_FOUND", f"the model {name!r} is not served here; {model.model!r} is")


def _input(wire: request_pb2.GenerateRequest, deployment: Deployment, violations: Violations) -> Input:
    content = text_input(wire, deployment, violations, has_token_ids=bool(wire.token_ids))
    return TokenIds(tuple(wire.token_ids)) if wire.token_ids else content


def _stopping(wire: request_pb2.Stopping, deployment: Deployment, call: Call, violations: Violations) -> Stopping:
    check = violations.check
    most = wire.max_output_tokens if wire.HasField("max_output_tokens") else None
    check(most is None or most >= 1, "stopping.max_output_tokens", "must be at least 1")
    check(
        most is None or wire.min_output_tokens <= most,
        "stopping.min_output_tokens",
        "must be at most max_output_tokens",
    )
    check(len(wire.stop_texts) <= _MOST_STOP_TEXTS, "stopping.stop_texts", f"must be at most {_MOST_STOP_TEXTS}")
    check(
        all(1 <= len(text) <= _LONGEST_STOP_TEXT for text in wire.stop_texts),
        "stopping.stop_texts",
        f"each must have 1 to {_LONGEST_STOP_TEXT} characters",
    )
    check(
        len(wire.stop_token_ids) <= _MOST_STOP_TOKENS,
        "stopping.stop_token_ids",
        f"must be at most {_MOST_STOP_TOKENS}",
    )
    ends_at = None
    if wire.HasField("time_limit"):
        limit = wire.time_limit.seconds + wire.time_limit.nanos / 1e9
        check(limit > 0, "stopping.time_limit", "must be above 0")
        # The caller's clock is not ours: the limit counts from the receive time.
        ends_at = call.received + limit
    return Stopping(
        max_output_tokens=most,
        default_max_output_tokens=deployment.max_output_tokens,
        min_output_tokens=wire.min_output_tokens,
        stop_texts=tuple(wire.stop_texts),
        stop_token_ids=tuple(wire.stop_token_ids),
        include_stop_text=wire.include_stop_text,
        ignore_eos=wire.ignore_eos,
        ends_at=ends_at,
    )


def _top_logprobs(wire: request_pb2.Output, model: ModelInfo, violations: Violations) -> int | None:
    if not wire.HasField("top_logprobs"):
        return None
    violations.check(
        wire.top_logprobs <= model.max_top_logprobs,
        "output.top_logprobs",
        f"must be at most {model.max_top_logprobs}",
    )
    return wire.top_logprobs


def _held(wire: request_pb2.ContinueFrom, violations: Violations) -> HeldPart | None:
    violations.check(
        not (wire.token_ids and wire.text), "continue_from", "must have either token_ids or text, not both"
    )
    if not wire.token_ids and not wire.text:
        return None
    return HeldPart(token_ids=tuple(wire.token_ids), text=wire.text)
