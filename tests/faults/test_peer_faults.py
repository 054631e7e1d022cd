"""Faults that other servers of this kind have; README.md lists them and their tests."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from doherty.v1 import (
    answer_pb2,
    generation_service_pb2,
    latency_service_pb2,
    model_pb2,
    request_pb2,
)
from doherty_engine.llamacpp._model_file import find_model
from support.fuzz.rpcs import offered
from support.server import ServerProcess, start_server
from support.wire import SECONDS, connect, failure_of, read_failure, request

SYNTHETIC = ("--engine", "synthetic")
ENDLESS = {"max_output_tokens": 3000, "ignore_eos": True}


def test_an_unset_field_is_not_zero() -> None:
    """Fault 2: an unset penalty was read as zero, which crashed the workers."""
    with start_server(*SYNTHETIC, "--temperature", "1.5") as server, connect(server.target) as caller:
        unset = caller.generate(prompt="a", sampling={"top_k": 5}).summary
        zero = caller.generate(prompt="a", sampling={"temperature": 0, "top_k": 5}).summary
        assert unset.HasField("seed")  # it was drawn, because the temperature is the default of the deployment
        assert not zero.HasField("seed")
        assert caller.failure(prompt="a", sampling={"repetition_penalty": 0}).fields == ["sampling.repetition_penalty"]


@pytest.mark.model
def test_every_end_of_sequence_token_ends_an_answer(tmp_path: Path) -> None:
    """Fault 3: only the end token in the model's file was used, so answers of Llama 3 never ended."""
    data = bytearray(find_model("", "").path.read_bytes())
    key = b"tokenizer.ggml.eos_token_id"
    at = data.index(key) + len(key) + 4  # after the type of the value
    assert data[at : at + 4] == (2).to_bytes(4, "little")
    data[at : at + 4] = (0).to_bytes(4, "little")  # in Llama 3, the token that ends a turn is another one
    model = tmp_path / "two-ends.gguf"
    model.write_bytes(data)
    with start_server("--model", str(model)) as server, connect(server.target) as caller:
        limited = {"max_output_tokens": 100}
        summary = caller.generate(prompt="What is 1 + 1?", sampling={"temperature": 0}, stopping=limited).summary
    assert (summary.finish_reason, summary.stop_token_id) == (answer_pb2.FINISH_REASON_STOP, 2)


def test_the_latency_of_a_stream_includes_the_stream() -> None:
    """Fault 7: the time until the handler returned its iterator was measured."""
    with start_server(*SYNTHETIC, "-o", "tokens_per_second=50") as server, connect(server.target) as caller:
        *_, last = caller.stream(prompt="a", stopping={**ENDLESS, "max_output_tokens": 25}, request_id="measured")
        now = caller.latency.GetLatency(latency_service_pb2.GetLatencyRequest(), timeout=SECONDS)
        line = server.wait_for("request", request_id="measured")
    first, whole = (
        distribution.p50.ToNanoseconds() for distribution in (now.time_to_first_token, now.time_to_last_token)
    )
    assert whole == last.summary.timings.time_to_last_token.ToNanoseconds()
    assert whole >= first + 0.4e9  # 25 tokens at a constant rate
    assert isinstance(line["duration_ms"], float)
    assert line["duration_ms"] >= whole / 1e6


def test_no_text_of_an_exception_reaches_a_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 9: the details of a status contained a stack trace."""
    broken = "from doherty_service import translation\ndef fail(*_): raise RuntimeError('secret')\n"
    broken += "translation.stream_message = translation.whole_message = translation.latency = fail\n"
    (tmp_path / "sitecustomize.py").write_text(broken)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with start_server(*SYNTHETIC) as server, connect(server.target) as caller:
        asked = request(prompt="a", request_id="unlucky")
        for call in (
            lambda: caller.stub.Generate(asked, timeout=SECONDS),
            lambda: list(caller.stub.StreamGenerate(asked, timeout=SECONDS)),
            lambda: caller.latency.GetLatency(latency_service_pb2.GetLatencyRequest(), timeout=SECONDS),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            failure = read_failure(caught.value)
            assert (failure.code, failure.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
            text = repr((failure, caught.value.trailing_metadata()))
            assert not any(word in text for word in ("secret", "Traceback", "RuntimeError", ".py"))
        logged = server.wait_for("error", request_id="unlucky")
        assert logged["error"] == "secret"
        assert "Traceback" in str(logged["exception"])


NEVER_FILLED = {
    "GetModelResponse.profile": "the engine has none",
    **dict.fromkeys(
        (f"GetModelResponse.default_sampling.{name}" for name in ("top_k", "min_p", "seed")), "off by default"
    ),
    **dict.fromkeys(
        (f"GetModelResponse.default_sampling.{name}_penalty" for name in ("frequency", "presence", "repetition")),
        "off by default",
    ),
}
"""Fields that neither engine can fill, and the reason."""

FILLED_WITH_KEYS = {"GetLatencyResponse.requests.by_key.key", "GetLatencyResponse.requests.refusals.key"}
"""tests/service/test_latency_truth.py checks that they are filled, on a server with keys."""

FILLED_BY_THE_MODEL = {
    "GenerateResponse.summary.usage.cached_tokens",
    "GetLatencyResponse.kv_cache_use",
    "GetModelResponse.revision",
}


def every_path(kind: Descriptor, prefix: str) -> Iterator[str]:
    """Returns the paths of all fields of a message that are not messages themselves."""
    for field in kind.fields:
        path = f"{prefix}.{field.name}"
        if field.message_type is None or field.message_type.full_name.startswith("google."):
            yield path
        else:
            yield from every_path(field.message_type, path)


def paths_set(message: Message, prefix: str) -> Iterator[str]:
    """Returns the paths that are set in a message to a value other than zero."""
    for field, value in message.ListFields():
        path = f"{prefix}.{field.name}"
        if field.message_type is None or field.message_type.full_name.startswith("google."):
            yield path
        else:
            for part in value if field.is_repeated else [value]:
                yield from paths_set(part, path)


def filled(*replies: Message) -> set[str]:
    return {path for reply in replies for path in paths_set(reply, reply.DESCRIPTOR.name)}


def test_no_field_is_advertised_and_never_filled() -> None:
    """Fault 12: the contract contained timings and sizes that no code ever set."""
    flags = ("-o", "slots=1", "-o", "tokens_per_step=2", "--top-p", "0.9", "--temperature", "1")
    with start_server(*SYNTHETIC, *flags, "--max-queued-requests", "1") as server, connect(server.target) as caller:
        wordy: dict[str, Any] = {"prompt": "a", "output": {"token_ids": True, "top_logprobs": 2}}
        whole = caller.generate(**wordy)
        stopped = caller.generate(prompt="a", sampling={"temperature": 0}, stopping={"stop_texts": ["e"]})
        messages = caller.stream(**wordy)
        count = caller.stub.CountTokens(generation_service_pb2.CountTokensRequest(prompt="a"), timeout=SECONDS)
        calls = [caller.stub.StreamGenerate(request(prompt="a", stopping=ENDLESS), timeout=SECONDS) for _ in range(2)]
        busy = caller.wait_until(lambda now: (now.running, now.queued) == (1, 1))
        assert caller.failure(prompt="a").reason == "QUEUE_FULL"
        for call in calls:
            call.cancel()
        after = caller.wait_until(lambda now: not now.running)
        model = caller.model
    with start_server(*SYNTHETIC, "-o", "die_after_steps=1") as server, connect(server.target) as caller:
        assert failure_of(lambda: caller.generate(prompt="a")).reason == "ENGINE_FAILED"
        restarted = caller.wait_until(lambda now: now.engine_restarts > 0)
    fields = filled(whole, stopped, *messages, count, busy, after, restarted, model)
    kinds = [type(message).DESCRIPTOR for message in (whole, messages[0], count, busy, model)]
    advertised = {path for kind in kinds for path in every_path(kind, kind.name)}
    of_the_model = FILLED_BY_THE_MODEL | {"StreamGenerateResponse.summary.usage.cached_tokens"}
    # The summary of a stream is created by the code of a unary call.
    of_either = {path for path in advertised if path.startswith("StreamGenerateResponse.summary.")}
    assert advertised - fields - of_either == (of_the_model - of_either) | FILLED_WITH_KEYS | NEVER_FILLED.keys()


@pytest.mark.model
def test_the_model_fills_the_fields_that_only_a_model_has() -> None:
    with start_server("-o", "slots=1") as server, connect(server.target) as caller:
        caller.generate(prompt="Name three colors.", stopping={"max_output_tokens": 1})
        again = caller.generate(prompt="Name three colors.", stopping={"max_output_tokens": 1})
        stream = caller.stub.StreamGenerate(request(prompt="a", stopping=ENDLESS), timeout=SECONDS)
        next(stream)
        now = caller.wait_until(lambda now: now.kv_cache_use > 0)
        stream.cancel()
    assert filled(again, now, caller.model) >= FILLED_BY_THE_MODEL


@pytest.fixture(scope="module")
def full() -> Iterator[ServerProcess]:
    """Runs a server that accepts no further request."""
    flags = ("-o", "slots=1", "-o", "tokens_per_second=20", "--max-queued-requests", "0")
    with start_server(*SYNTHETIC, *flags) as server, connect(server.target) as caller:
        running = caller.stub.StreamGenerate(request(prompt="a", stopping=ENDLESS))
        caller.wait_until(lambda now: now.running == 1)
        yield server
        running.cancel()


def test_every_way_to_generate_passes_admission(full: ServerProcess) -> None:
    """Fault 19: the limits applied to HTTP, but not to gRPC."""
    generating = [rpc for rpc in offered(full.target) if rpc.request.full_name == "doherty.v1.GenerateRequest"]
    assert len(generating) >= 2
    with grpc.insecure_channel(full.target) as channel:
        for rpc in generating:
            with pytest.raises(grpc.RpcError) as refused:
                list(rpc.open(channel)(request(prompt="a").SerializeToString(), timeout=SECONDS))
            assert read_failure(refused.value).reason == "QUEUE_FULL"


def test_a_refusal_comes_before_any_work(full: ServerProcess) -> None:
    """Fault 23: the prompt was rendered and tokenized first."""
    with connect(full.target) as caller:
        too_long = "word " * 2 * caller.model.limits.context_tokens
        assert caller.failure(prompt=too_long).reason == "QUEUE_FULL"


def test_an_answer_is_not_cut_short_by_default(synthetic_server: ServerProcess) -> None:
    """Fault 22: answers had twenty or thirty-two tokens unless the caller asked for more."""
    with connect(synthetic_server.target) as caller:
        summary = caller.generate(prompt="a").summary
        assert (summary.finish_reason, summary.usage.output_tokens) == (answer_pb2.FINISH_REASON_STOP, 170)
        assert caller.model.limits.default_max_output_tokens == 1024


def test_no_result_is_hidden_in_an_untyped_field() -> None:
    """Fault 24: results were a map<string, string>."""
    files = (answer_pb2, generation_service_pb2, latency_service_pb2, model_pb2, request_pb2)
    for file in files:
        for kind in file.DESCRIPTOR.message_types_by_name.values():
            for field in kind.fields:
                assert not is_untyped(field), field.full_name


def is_untyped(field: FieldDescriptor) -> bool:
    kind = field.message_type
    if kind is None:
        return False
    return kind.GetOptions().map_entry or kind.full_name in {"google.protobuf.Any", "google.protobuf.Struct"}
