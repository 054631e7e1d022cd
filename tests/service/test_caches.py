"""Cached keys and settings never allow a request that would otherwise be refused."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from doherty.v1.request_pb2 import GenerateRequest
from doherty_engine import ModelInfo
from doherty_service._errors import NotFoundError, UnsupportedFieldError
from doherty_service.security import ANYBODY, CacheSalts, changing_keys
from doherty_service.telemetry import RequestRecord
from doherty_service.translation import Deployment, RequestReader
from support.security import add_key, connect_with
from support.server import ServerProcess, start_server
from support.wire import Caller, connect, failure_of, request

SHORT: dict[str, Any] = {"prompt": "Why?", "stopping": {"max_output_tokens": 2, "ignore_eos": True}}
ENDLESS: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 8000, "ignore_eos": True}}
SETTINGS: dict[str, Any] = {
    "sampling": {"temperature": 0.5, "top_k": 5},
    "stopping": {"max_output_tokens": 2, "stop_texts": ["x"]},
    "output": {"token_ids": True, "top_logprobs": 2},
}
MODEL = ModelInfo(
    "one", "", "synthetic", "1", 8192, 50_000, 4, frozenset({"prompt", "sampling.temperature", "sampling.top_k"})
)
DEPLOYMENT = Deployment()


@pytest.fixture(scope="module")
def caller(synthetic_server: ServerProcess) -> Iterator[Caller]:
    with connect(synthetic_server.target) as connected:
        yield connected


TWINS: dict[str, dict[str, Any]] = {
    "no input": {},
    "two inputs": {"prompt": "a", "raw_text": "b"},
    "wrong messages": {"messages": [{"role": "ROLE_SYSTEM", "content": "a"}]},
    "wrong token ids": {"token_ids": [4_000_000_000]},
    "another model": {"prompt": "a", "model": "another"},
    "another adapter": {"prompt": "a", "adapter": "nobody"},
    "an unknown priority": {"prompt": "a", "priority": 77},
    "an empty constraint": {"prompt": "a", "constraint": {}},
    "a held part twice": {"prompt": "a", "continue_from": {"text": "b", "token_ids": [40]}},
    "no time": {"prompt": "a", "stopping": {**SETTINGS["stopping"], "time_limit": "0s"}},
    "an empty stop text": {"prompt": "a", "stopping": {**SETTINGS["stopping"], "stop_texts": ["x", ""]}},
    "a temperature": {"prompt": "a", "sampling": {**SETTINGS["sampling"], "temperature": -0.5}},
    "alternatives": {"prompt": "a", "output": {"token_ids": True, "top_logprobs": 21}},
}


@pytest.mark.parametrize("name", TWINS)
def test_an_invalid_request_is_refused_after_a_similar_valid_one(caller: Caller, name: str) -> None:
    for valid in ({"prompt": "a"}, {"raw_text": "a"}, {"messages": [{"role": "ROLE_USER", "content": "a"}]}):
        caller.generate(**{**valid, **SETTINGS})
    wrong = {**SETTINGS, **TWINS[name]}
    first, again = caller.failure(**wrong), caller.failure(**wrong)
    assert first.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert (first.message, first.fields) == (again.message, again.fields)


@pytest.mark.parametrize("group", ["sampling", "stopping", "output"])
def test_an_unknown_field_is_refused_after_a_similar_valid_request(caller: Caller, group: str) -> None:
    newer = request(prompt="a", **SETTINGS)
    caller.stub.Generate(newer)
    getattr(newer, group).MergeFromString(b"\xa0\x06\x01")  # field 100
    for _ in "12":
        assert failure_of(lambda: caller.stub.Generate(newer)).fields == [f"{group}.100"]


def test_a_new_seed_is_drawn_each_time(caller: Caller) -> None:
    unseeded = {"prompt": "a", **SETTINGS}
    seeds = {caller.generate(**unseeded).summary.seed for _ in range(8)}
    assert len(seeds) == 8
    seeded = {**unseeded, "sampling": {**SETTINGS["sampling"], "seed": 7}}
    assert [caller.generate(**seeded).summary.seed for _ in "12"] == [7, 7]
    assert caller.generate(**unseeded).summary.seed != 7


def read(reader: RequestReader, served: ModelInfo, **fields: Any) -> None:
    record = RequestRecord("/doherty.v1.GenerationService/Generate", "key", "key", ANYBODY)
    reader.read(request(**fields), record, served, whole=True)


def test_a_new_model_clears_the_cached_settings() -> None:
    reader = RequestReader(DEPLOYMENT, CacheSalts(shared=False))
    asked: dict[str, Any] = {"prompt": "a", "model": "one", "sampling": {"temperature": 0.5, "top_k": 5}}
    for _ in "12":
        read(reader, MODEL, **asked)
    with pytest.raises(NotFoundError):
        read(reader, replace(MODEL, model="two"), **asked)
    with pytest.raises(UnsupportedFieldError, match="top_k"):
        read(reader, replace(MODEL, features=MODEL.features - {"sampling.top_k"}), **asked)
    read(reader, MODEL, **asked)


def test_the_cache_of_settings_is_bounded() -> None:
    reader = RequestReader(DEPLOYMENT, CacheSalts(shared=False))
    for number in range(2500):
        read(reader, MODEL, prompt="a", sampling={"temperature": number / 2500})
    assert len(reader._cache) <= 1000  # noqa: SLF001 - the memory of the process would be a less reliable measure
    large = GenerateRequest(prompt="a", model="x" * 5000)
    with pytest.raises(NotFoundError):
        read(reader, MODEL, prompt=large.prompt, model=large.model)


def test_a_change_of_a_cached_key_applies_from_the_next_call(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, "known")
    with (
        start_server("--engine", "synthetic", "--keys-file", str(keys)) as server,
        connect_with(server.target, token) as caller,
    ):
        for _ in range(3):
            assert caller.generate(**SHORT).text
        _change(keys, adapters=("mine",))
        assert caller.failure(**SHORT, adapter="another").reason == "ADAPTER_NOT_ALLOWED"
        _change(keys, adapters=None)
        assert caller.failure(**SHORT, adapter="another").reason == "ADAPTER_NOT_FOUND"
        running = caller.stub.StreamGenerate(request(**ENDLESS))
        next(running)
        _change(keys, max_concurrent=1)
        assert caller.failure(**SHORT).reason == "KEY_LIMIT"
        _change(keys, max_concurrent=2)
        assert caller.generate(**SHORT).text
        with changing_keys(keys) as held:
            held.clear()
        assert caller.failure(**SHORT).reason == "INVALID_KEY"
        running.cancel()


def _change(keys: Path, **fields: Any) -> None:
    with changing_keys(keys) as held:
        held[:] = [key.model_copy(update=fields) for key in held]
