"""Invalid fields are named in the error."""

from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from doherty import Client
from doherty.v1.generation_service_pb2 import CountTokensRequest
from doherty.v1.latency_service_pb2 import GetLatencyRequest
from doherty.v1.model_pb2 import GetModelRequest
from support.server import ServerProcess
from support.wire import Caller, connect, failure_of, request

PROMPT = {"prompt": "Name three colors."}

INVALID: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no input": ({"prompt": None}, ["prompt"]),
    "two inputs": ({"raw_text": "a"}, ["prompt"]),
    "three inputs": ({"raw_text": "a", "token_ids": [40]}, ["prompt"]),
    "no role": ({"prompt": None, "messages": [{"content": "a"}]}, ["messages[0].role", "messages[0].role"]),
    "late system message": (
        {"prompt": None, "messages": [{"role": "ROLE_USER"}, {"role": "ROLE_SYSTEM"}, {"role": "ROLE_USER"}]},
        ["messages[1].role"],
    ),
    "assistant last": (
        {"prompt": None, "messages": [{"role": "ROLE_USER"}, {"role": "ROLE_ASSISTANT"}]},
        ["messages[1].role"],
    ),
    "long request id": ({"request_id": "x" * 129}, ["request_id"]),
    "line break in request id": ({"request_id": "x\ny"}, ["request_id"]),
    "hot": ({"sampling": {"temperature": 2.1}}, ["sampling.temperature"]),
    "negative temperature": ({"sampling": {"temperature": -0.1}}, ["sampling.temperature"]),
    "no number": ({"sampling": {"temperature": "NaN"}}, ["sampling.temperature"]),
    "top_p of zero": ({"sampling": {"top_p": 0}}, ["sampling.top_p"]),
    "min_p above one": ({"sampling": {"min_p": 1.1}}, ["sampling.min_p"]),
    "frequency penalty": ({"sampling": {"frequency_penalty": 3}}, ["sampling.frequency_penalty"]),
    "presence penalty": ({"sampling": {"presence_penalty": -3}}, ["sampling.presence_penalty"]),
    "repetition penalty of zero": ({"sampling": {"repetition_penalty": 0}}, ["sampling.repetition_penalty"]),
    "infinite penalty": ({"sampling": {"repetition_penalty": "Infinity"}}, ["sampling.repetition_penalty"]),
    "no tokens": ({"stopping": {"max_output_tokens": 0}}, ["stopping.max_output_tokens"]),
    "empty stop text": ({"stopping": {"stop_texts": ["a", ""]}}, ["stopping.stop_texts"]),
    "too many stop texts": ({"stopping": {"stop_texts": ["a"] * 17}}, ["stopping.stop_texts"]),
    "long stop text": ({"stopping": {"stop_texts": ["a" * 1001]}}, ["stopping.stop_texts"]),
    "too many stop tokens": ({"stopping": {"stop_token_ids": [1] * 65}}, ["stopping.stop_token_ids"]),
    "unknown stop token": ({"stopping": {"stop_token_ids": [4_000_000_000]}}, ["stopping.stop_token_ids"]),
    "no time": ({"stopping": {"time_limit": "0s"}}, ["stopping.time_limit"]),
    "negative time": ({"stopping": {"time_limit": "-1s"}}, ["stopping.time_limit"]),
    "empty constraint": ({"constraint": {}}, ["constraint"]),
    "several at once": (
        {"sampling": {"top_p": 0}, "stopping": {"max_output_tokens": 0}},
        ["sampling.top_p", "stopping.max_output_tokens"],
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_field_is_named(caller: Caller, name: str) -> None:
    fields, paths = INVALID[name]
    failure = caller.failure(**{**PROMPT, **fields})
    assert failure.fields == paths
    if any(path.startswith("sampling.") and path not in caller.model.features for path in paths):
        assert failure.code is grpc.StatusCode.UNIMPLEMENTED
        return
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (failure.domain, failure.reason) == ("doherty", "INVALID_FIELD")


def test_min_output_tokens_is_at_most_the_maximum(synthetic_server: ServerProcess) -> None:
    with connect(synthetic_server.target) as caller:
        stopping = {"max_output_tokens": 5, "min_output_tokens": 6}
        assert caller.failure(**PROMPT, stopping=stopping).fields == ["stopping.min_output_tokens"]


def test_the_limits_of_the_contract_are_decimal_numbers(synthetic_server: ServerProcess) -> None:
    bounds = {
        "temperature": (0, 2),
        "top_p": (1e-9, 1),
        "min_p": (0, 1),
        "frequency_penalty": (-2, 2),
        "presence_penalty": (-2, 2),
        "repetition_penalty": (0.01, 2),  # which no 32-bit float equals
    }
    with connect(synthetic_server.target) as caller:
        for name, ends in bounds.items():
            for end in ends:
                caller.generate(**PROMPT, sampling={name: end}, stopping={"max_output_tokens": 1})
        below = caller.failure(**PROMPT, sampling={"repetition_penalty": 0.0099999})
        assert below.fields == ["sampling.repetition_penalty"]
        assert "from 0.01 to 2" in below.message


def test_a_default_is_reported_with_the_value_that_was_set(vllm_server: ServerProcess) -> None:
    with Client(vllm_server.target) as client:
        defaults = client.model().default_sampling
    assert (defaults.temperature, defaults.top_p) == (0.6, 0.9)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": "word " * 800_000}, "prompt"),
        ({"raw_text": "word " * 800_000}, "raw_text"),
        ({"messages": [{"role": "ROLE_USER", "content": "word " * 800_000}]}, "messages"),
    ],
)
def test_a_text_too_long_for_any_context_is_refused(caller: Caller, fields: dict[str, Any], field: str) -> None:
    failure = caller.failure(**fields)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert failure.fields == [field]
    assert "ever hold" in failure.message


def test_a_prompt_too_long_for_the_context_is_invalid(caller: Caller) -> None:
    long = "word and " * caller.model.limits.context_tokens
    for name in ("prompt", "raw_text"):
        failure = caller.failure(**{name: long})
        assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
        assert failure.fields == [name]


@pytest.mark.parametrize("method", ["Generate", "StreamGenerate", "CountTokens", "GetModel", "GetLatency"])
def test_a_field_that_only_a_newer_contract_knows_is_refused(caller: Caller, method: str) -> None:
    requests: dict[str, Message] = {
        "Generate": request(**PROMPT),
        "StreamGenerate": request(**PROMPT),
        "CountTokens": CountTokensRequest(prompt="a"),
        "GetModel": GetModelRequest(),
        "GetLatency": GetLatencyRequest(),
    }
    newer = requests[method]
    newer.MergeFromString(b"\xa0\x06\x01")  # field 100, varint 1
    call: Any = getattr(caller.latency if method == "GetLatency" else caller.stub, method)
    failure = failure_of(lambda: list(call(newer, timeout=10)))
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNIMPLEMENTED, "FIELD_NOT_SUPPORTED")
    assert failure.fields == ["100"]
