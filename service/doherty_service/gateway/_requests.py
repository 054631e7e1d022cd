"""Translates VllmEngine's requests to those of the contract."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from doherty.v1 import request_pb2
from doherty_service import translation
from doherty_service._errors import UnsupportedFieldError

if TYPE_CHECKING:
    from smg_grpc_proto.generated import vllm_engine_pb2 as vllm

    from doherty_engine import ModelInfo

_SUPPORTED = frozenset({"request_id", "tokenized", "text", "sampling_params", "stream"})
_REFUSED = frozenset({"prompt_logprobs", "logit_bias", "truncate_prompt_tokens", "structural_tag"})
_ANY_OBJECT = '{"type": "object"}'
_NO_TOP_K = 1 << 31
"""SMG may send -1 (no top_k) as an unsigned number."""
_SEED_BITS = 32


def to_contract(wire: "vllm.GenerateRequest", model: "ModelInfo") -> request_pb2.GenerateRequest:
    """Translates a request. Values that mean "off" are left out, because SMG always sends them.

    Fields about the text of special tokens have no effect, because SMG detokenizes. `grammar_from_first_token` has no
    effect either, because our constraints always apply from the first token.

    Raises:
        UnsupportedFieldError: A field is set that the contract lacks. The error names the first one.
    """
    translation.refuse_unknown(wire)
    for path in _unsupported_paths(wire):
        raise UnsupportedFieldError(path)
    request = request_pb2.GenerateRequest(request_id=wire.request_id)
    request.output.token_ids = True
    if wire.HasField("tokenized"):
        request.token_ids.extend(wire.tokenized.input_ids)
    elif wire.HasField("text"):
        request.raw_text = wire.text
    params = wire.sampling_params
    _put_sampling(request.sampling, params)
    _put_stopping(request.stopping, params, model.context_tokens - len(request.token_ids))
    if params.HasField("logprobs"):
        request.output.top_logprobs = params.logprobs
    if (form := params.WhichOneof("constraint")) is not None:
        _CONSTRAINTS[form](request.constraint, params)
    return request


def _unsupported_paths(wire: "vllm.GenerateRequest") -> Iterator[str]:
    for field, value in wire.ListFields():
        if field.name not in _SUPPORTED and not (field.name == "data_parallel_rank" and value == 0):
            yield field.name
    params = wire.sampling_params
    yield from (f"sampling_params.{field.name}" for field, _ in params.ListFields() if field.name in _REFUSED)
    if params.n > 1:
        yield "sampling_params.n"
    if params.HasField("logprobs") and params.logprobs < 0:
        yield "sampling_params.logprobs"


def _put_sampling(sampling: request_pb2.Sampling, params: "vllm.SamplingParams") -> None:
    if params.HasField("temperature"):
        sampling.temperature = params.temperature
    if params.HasField("seed"):
        sampling.seed = params.seed % (1 << _SEED_BITS)
    if 0 < params.top_k < _NO_TOP_K:
        sampling.top_k = params.top_k
    for name, off in _OFF.items():
        value = getattr(params, name)
        if value not in {0, off}:
            setattr(sampling, name, value)


_OFF = {
    "top_p": 1.0,
    "min_p": 0.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "repetition_penalty": 1.0,
}


def _put_stopping(stopping: request_pb2.Stopping, params: "vllm.SamplingParams", room: int) -> None:
    """`room` is the number of tokens that the prompt leaves in the context. A larger `max_tokens` is reduced to it."""
    if params.HasField("max_tokens"):
        stopping.max_output_tokens = min(params.max_tokens, max(1, room))
    if params.min_tokens:
        stopping.min_output_tokens = params.min_tokens
    stopping.stop_texts.extend(params.stop)
    stopping.stop_token_ids.extend(params.stop_token_ids)
    if params.include_stop_str_in_output:
        stopping.include_stop_text = True
    if params.ignore_eos:
        stopping.ignore_eos = True


def _put_json_object(constraint: request_pb2.Constraint, params: "vllm.SamplingParams") -> None:
    if params.json_object:
        constraint.json_schema = _ANY_OBJECT


def _put_choice(constraint: request_pb2.Constraint, params: "vllm.SamplingParams") -> None:
    constraint.choices.choices.extend(params.choice.choices)


def _put_text(name: str) -> "Callable[[request_pb2.Constraint, vllm.SamplingParams], None]":
    return lambda constraint, params: setattr(constraint, name, getattr(params, name))


_CONSTRAINTS: "dict[str, Callable[[request_pb2.Constraint, vllm.SamplingParams], None]]" = {
    **{name: _put_text(name) for name in ("json_schema", "regex", "grammar")},
    "json_object": _put_json_object,
    "choice": _put_choice,
}
