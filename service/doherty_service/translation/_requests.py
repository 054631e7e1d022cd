"""Translates and validates requests. Every field is either read or refused."""

import random
from dataclasses import replace
from typing import NamedTuple

from doherty.v1 import generation_service_pb2, request_pb2
from doherty_engine import AnswerPrefix, EngineRequest, Input, ModelInfo, Sampling, Stopping, TokenIds
from doherty_service._errors import UnsupportedFieldError
from doherty_service.admission import Priority, Ticket
from doherty_service.security import CacheSalts
from doherty_service.telemetry import RequestRecord
from doherty_service.translation._deployment import Deployment
from doherty_service.translation._fields import constraint, prompt_input, sampling, text_input
from doherty_service.translation._lengths import MAX_STOP_TOKENS, check_lengths
from doherty_service.translation._size import SMALL_BYTES
from doherty_service.translation._supported import check_adapter, check_model, check_supported
from doherty_service.translation._unknown import refuse_unknown
from doherty_service.translation._violations import Violations

_PRIORITIES = {
    request_pb2.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    request_pb2.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    request_pb2.PRIORITY_BATCH: Priority.BATCH,
}
_HIGHEST_PRIORITIES = {"interactive": Priority.INTERACTIVE, "batch": Priority.BATCH}

_MAX_REQUEST_ID = 128
_MAX_STOP_TEXTS = 16
_LONGEST_STOP_TEXT = 1000
_MAX_CACHED = 1_000
_MAX_KEY_BYTES = 1024
_SEED_BITS = 32
"""The size of a seed that the server draws: short enough for people to type."""


class _Inputs(NamedTuple):
    """Which inputs a request has."""

    prompt: bool
    messages: bool
    raw_text: bool
    token_ids: bool


_Key = tuple[bytes, _Inputs]


class _Settings(NamedTuple):
    """The validated settings of a request: everything except its input."""

    sampling: Sampling
    has_seed: bool
    stopping: Stopping
    top_logprobs: int | None


class RequestReader:
    """Translates and validates the requests for one deployment.

    Callers repeat their settings. So valid settings are cached by their bytes, and only the input is validated for each
    request. The settings of requests with a constraint, `continue_from`, an adapter or a time limit are not cached.
    """

    def __init__(self, deployment: Deployment, salts: CacheSalts) -> None:
        self._deployment = deployment
        self._salts = salts
        self._model: ModelInfo | None = None
        self._cache: dict[_Key, _Settings] = {}

    def read(
        self, wire: request_pb2.GenerateRequest, record: RequestRecord, model: ModelInfo, *, whole: bool
    ) -> tuple[EngineRequest, Ticket]:
        """Translates a request.

        Args:
            wire: The request.
            record: Its record, with the receive time and the caller's deadline.
            model: The model that is served.
            whole: Whether the caller waits for the whole answer.

        Raises:
            InvalidRequestError: Fields are invalid; names all of them.
            NotFoundError: The model or the adapter is not served.
            UnsupportedFieldError: A field is set that this deployment does not support.
        """
        if model is not self._model:  # a new engine
            self._model = model
            self._cache.clear()
        size = wire.ByteSize()
        if size > SMALL_BYTES:
            check_lengths(wire, model)
        key = _settings_key(wire) if size <= SMALL_BYTES else None
        settings = None if key is None else self._cache.get(key)
        if settings is not None and key is not None:
            request = self._with_settings(wire, record, settings, key[1])
        else:
            refuse_unknown(wire)
            request = self._validate(wire, record, model)
            if key is not None:
                if len(self._cache) >= _MAX_CACHED:
                    self._cache.clear()
                has_seed = wire.sampling.HasField("seed")
                self._cache[key] = _Settings(request.sampling, has_seed, request.stopping, request.top_logprobs)
        return request, _ticket(wire, request, record, size, whole=whole)

    def _with_settings(
        self, wire: request_pb2.GenerateRequest, record: RequestRecord, settings: _Settings, inputs: _Inputs
    ) -> EngineRequest:
        """Translates a request whose settings were found valid together with an input of this kind."""
        content: Input
        if inputs.prompt:
            content = prompt_input(wire.prompt, self._deployment)
        else:
            if inputs.messages:
                refuse_unknown(wire)  # the key has the unknown fields of everything but the messages
            violations = Violations()
            content = _input(wire, self._deployment, violations)
            violations.raise_if_any()
        chosen, has_seed, stopping, top_logprobs = settings
        if not has_seed and chosen.temperature > 0:
            chosen = replace(chosen, seed=random.getrandbits(_SEED_BITS))
        return EngineRequest(
            record.key,
            content,
            chosen,
            stopping,
            wire.output.token_ids,
            top_logprobs,
            cache_salt=self._salts.of(record.caller),
        )

    def _validate(self, wire: request_pb2.GenerateRequest, record: RequestRecord, model: ModelInfo) -> EngineRequest:
        violations = Violations()
        check_supported(wire, model)
        check_model(wire.model, model)
        check_adapter(wire.adapter, model)
        request = EngineRequest(
            key=record.key,
            input=_input(wire, self._deployment, violations),
            sampling=sampling(
                wire.sampling, model.default_sampling, self._deployment, random.getrandbits(_SEED_BITS), violations
            ),
            stopping=_stopping(wire.stopping, self._deployment, record, violations),
            token_ids=wire.output.token_ids,
            top_logprobs=_top_logprobs(wire.output, model, violations),
            constraint=constraint(wire.constraint, violations) if wire.HasField("constraint") else None,
            adapter=wire.adapter,
            prefix=_prefix(wire.continue_from, violations),
            cache_salt=self._salts.of(record.caller),
        )
        violations.check(wire.priority in _PRIORITIES, "priority", "is not a known priority")
        violations.raise_if_any()
        return request


def _settings_key(wire: request_pb2.GenerateRequest) -> _Key | None:
    """The settings of a small request as bytes, with their unknown fields, and which inputs it has.

    None if its settings must not be cached.
    """
    if wire.HasField("constraint") or wire.HasField("continue_from") or wire.adapter:
        return None
    if wire.stopping.HasField("time_limit"):
        return None
    inputs = _Inputs(wire.HasField("prompt"), bool(wire.messages), wire.HasField("raw_text"), bool(wire.token_ids))
    settings = request_pb2.GenerateRequest()
    settings.CopyFrom(wire)
    if inputs.prompt:
        settings.ClearField("prompt")
    if inputs.messages:
        settings.ClearField("messages")
    if inputs.raw_text:
        settings.ClearField("raw_text")
    if inputs.token_ids:
        settings.ClearField("token_ids")
    if wire.request_id:
        settings.ClearField("request_id")
    key = settings.SerializeToString()
    return (key, inputs) if len(key) <= _MAX_KEY_BYTES else None


def take_label(wire: request_pb2.GenerateRequest, record: RequestRecord) -> None:
    """Writes the caller's label to `record`, so that the log and all errors contain it.

    Raises:
        InvalidRequestError: The label is invalid.
    """
    label = wire.request_id
    if not label:
        return
    violations = Violations()
    violations.check(
        len(label) <= _MAX_REQUEST_ID and label.isascii() and label.isprintable(),
        "request_id",
        f"must be at most {_MAX_REQUEST_ID} printable ASCII characters",
    )
    violations.raise_if_any()
    record.request_id = label


def _ticket(
    wire: request_pb2.GenerateRequest, request: EngineRequest, record: RequestRecord, size: int, *, whole: bool
) -> Ticket:
    caller, stopping = record.caller, request.stopping
    max_tokens = stopping.max_output_tokens or stopping.default_max_output_tokens
    prefix_tokens = len(request.prefix.token_ids) if request.prefix is not None else 0
    return Ticket(
        priority=max(_PRIORITIES[wire.priority], _HIGHEST_PRIORITIES[caller.highest_priority]),
        size=size,
        key=caller.name,
        weight=caller.weight,
        max_tokens=max(1, max_tokens - prefix_tokens),
        deadline=record.ends_at,
        ends_at=stopping.ends_at,
        whole=whole,
        tried_for=record.tried_for,
        progress=record,
    )


def count_tokens_input(
    wire: generation_service_pb2.CountTokensRequest, model: ModelInfo, deployment: Deployment
) -> Input:
    """Translates the input of CountTokens.

    Raises:
        InvalidRequestError: Fields are invalid; names all of them.
        NotFoundError: The model is not served.
        UnsupportedFieldError: The model does not support this input, or there is a field of a newer contract.
    """
    violations = Violations()
    if wire.ByteSize() > SMALL_BYTES:
        check_lengths(wire, model)
    refuse_unknown(wire)
    check_model(wire.model, model)
    for field, _ in wire.ListFields():
        if field.name != "model" and field.name not in model.features:
            raise UnsupportedFieldError(field.name)
    content = text_input(wire, deployment, violations)
    violations.raise_if_any()
    return content


def _input(wire: request_pb2.GenerateRequest, deployment: Deployment, violations: Violations) -> Input:
    content = text_input(wire, deployment, violations, has_token_ids=bool(wire.token_ids))
    return TokenIds(tuple(wire.token_ids)) if wire.token_ids else content


def _stopping(
    wire: request_pb2.Stopping, deployment: Deployment, record: RequestRecord, violations: Violations
) -> Stopping:
    check = violations.check
    max_tokens = wire.max_output_tokens if wire.HasField("max_output_tokens") else None
    check(max_tokens is None or max_tokens >= 1, "stopping.max_output_tokens", "must be at least 1")
    check(
        max_tokens is None or wire.min_output_tokens <= max_tokens,
        "stopping.min_output_tokens",
        "must be at most max_output_tokens",
    )
    check(len(wire.stop_texts) <= _MAX_STOP_TEXTS, "stopping.stop_texts", f"may have at most {_MAX_STOP_TEXTS} items")
    check(
        all(1 <= len(text) <= _LONGEST_STOP_TEXT for text in wire.stop_texts),
        "stopping.stop_texts",
        f"each must have 1 to {_LONGEST_STOP_TEXT} characters",
    )
    check(
        len(wire.stop_token_ids) <= MAX_STOP_TOKENS,
        "stopping.stop_token_ids",
        f"may have at most {MAX_STOP_TOKENS} items",
    )
    ends_at = None
    if wire.HasField("time_limit"):
        limit = wire.time_limit.seconds + wire.time_limit.nanos / 1e9
        check(limit > 0, "stopping.time_limit", "must be above 0")
        # It counts from the receive time, because the caller's clock may differ from ours.
        ends_at = record.received + limit
    return Stopping(
        max_output_tokens=max_tokens,
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


def _prefix(wire: request_pb2.ContinueFrom, violations: Violations) -> AnswerPrefix | None:
    violations.check(
        not (wire.token_ids and wire.text), "continue_from", "must have either token_ids or text, not both"
    )
    if not wire.token_ids and not wire.text:
        return None
    return AnswerPrefix(token_ids=tuple(wire.token_ids), text=wire.text)
