"""The port for the gateway SMG."""

import io
import threading
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest
from smg_grpc_proto.generated import common_pb2
from smg_grpc_proto.generated import vllm_engine_pb2 as vllm
from smg_grpc_proto.generated import vllm_engine_pb2_grpc as vllm_grpc

from doherty import Client
from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from support.door import DoorServer, start_door
from support.hugging_face import write_llama3
from support.security import add_key, bearer
from support.server import start_server
from support.vllm import FAKE_PATH
from support.wire import SECONDS, connect, failure_of, request

SLOTS = 2
PROMPT = [72, 105]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorServer]:
    """Runs a server that requires keys at its main port."""
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    key = add_key(keys, "people")
    flags = ("--engine", "synthetic", "-o", f"slots={SLOTS}", "--keys-file", str(keys))
    with start_door(*flags, key=key) as started:
        yield started


@pytest.fixture(scope="module")
def stub(server: DoorServer) -> Iterator[Any]:
    with grpc.insecure_channel(server.door) as channel:
        yield vllm_grpc.VllmEngineStub(channel)


def smg_request(name: str = "r", *, stream: bool = True, ids: Any = PROMPT, **params: Any) -> Any:
    """Returns a request with the fields that SMG always sends."""
    defaults = {"top_p": 1.0, "repetition_penalty": 1.0, "n": 1, "skip_special_tokens": True}
    return vllm.GenerateRequest(
        request_id=name,
        tokenized=vllm.TokenizedInput(original_text="Hi", input_ids=ids),
        sampling_params=vllm.SamplingParams(**defaults | params),
        stream=stream,
    )


def running(server: DoorServer) -> int:
    with Client(server.target, api_key=server.key) as client:
        return client.latency().running


def answers(server: DoorServer) -> int:
    with Client(server.target, api_key=server.key) as client:
        requests = client.latency().requests
    assert requests is not None
    return requests.total


def test_unary_and_streamed_answers_have_the_ids_of_the_contract(server: DoorServer, stub: Any) -> None:
    before = answers(server)
    *chunks, last = stub.Generate(smg_request(max_tokens=20, ignore_eos=True), timeout=SECONDS)
    (whole,) = stub.Generate(smg_request(stream=False, max_tokens=20, ignore_eos=True), timeout=SECONDS)
    fields = request(
        token_ids=PROMPT, stopping={"max_output_tokens": 20, "ignore_eos": True}, output={"token_ids": True}
    )
    with grpc.insecure_channel(server.target) as channel:
        native = GenerationServiceStub(channel).Generate(fields, timeout=SECONDS, metadata=bearer(server.key))
    ids = [token for chunk in chunks for token in chunk.chunk.token_ids]
    assert ids == list(last.complete.output_ids) == list(whole.complete.output_ids) == list(native.token_ids)
    assert [chunk.chunk.completion_tokens for chunk in chunks] == [len(chunk.chunk.token_ids) for chunk in chunks]
    for complete in (last.complete, whole.complete):
        assert (complete.finish_reason, complete.prompt_tokens, complete.completion_tokens) == ("length", 2, 20)
    while answers(server) < before + 3:  # requests through a gateway are counted, too
        pass


def test_a_stream_that_takes_longer_than_the_wait_for_its_message_is_complete(stub: Any) -> None:
    replies = list(stub.Generate(smg_request(max_tokens=30, ignore_eos=True), timeout=SECONDS))
    assert sum(len(reply.chunk.token_ids) for reply in replies) == 30


def test_an_absurd_maximum_is_clamped_and_a_long_prompt_is_accepted(stub: Any) -> None:
    (whole,) = stub.Generate(
        smg_request(stream=False, ids=PROMPT * 3000, max_tokens=2**31, stop=["e"]), timeout=SECONDS
    )
    assert whole.complete.matched_stop_str == "e"
    assert whole.complete.prompt_tokens == 6000


def test_log_probabilities_and_constraints_are_supported(stub: Any) -> None:
    schema = '{"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}'
    (whole,) = stub.Generate(smg_request(stream=False, logprobs=2, json_schema=schema), timeout=SECONDS)
    complete = whole.complete
    assert len(complete.output_logprobs.token_logprobs) == len(complete.output_ids) == complete.completion_tokens
    assert all(len(top.values) == len(top.token_ids) == 2 for top in complete.output_logprobs.top_logprobs)
    assert complete.finish_reason == "stop"
    (chosen,) = stub.Generate(smg_request(stream=False, choice={"choices": ["yes"]}), timeout=SECONDS)
    assert bytes(token for token in chosen.complete.output_ids if token < 256) == b"yes"


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"n": 2}, "sampling_params.n"),
        ({"logit_bias": {1: 2.0}}, "sampling_params.logit_bias"),
        ({"prompt_logprobs": 1}, "sampling_params.prompt_logprobs"),
        ({"logprobs": -1}, "sampling_params.logprobs"),
        ({"structural_tag": "{}"}, "sampling_params.structural_tag"),
    ],
)
def test_unsupported_fields_are_refused_by_name(stub: Any, params: Any, field: str) -> None:
    failure = failure_of(lambda: list(stub.Generate(smg_request(**params), timeout=SECONDS)))
    assert (failure.code, failure.fields) == (grpc.StatusCode.UNIMPLEMENTED, [field])


def test_media_are_refused_and_other_methods_do_not_exist(stub: Any) -> None:
    media = smg_request()
    media.media_refs.items.add(url="data:,")
    failure = failure_of(lambda: list(stub.Generate(media, timeout=SECONDS)))
    assert failure.fields == ["media_refs"]
    for call, message in (
        (stub.Embed, vllm.EmbedRequest()),
        (stub.FlushCache, common_pb2.FlushCacheRequest()),
        (lambda *args, **kwargs: list(stub.SubscribeKvEvents(*args, **kwargs)), common_pb2.SubscribeKvEventsRequest()),
        (lambda *args, **kwargs: list(stub.GetTokenizer(*args, **kwargs)), common_pb2.GetTokenizerRequest()),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call(message, timeout=SECONDS)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_abort_ends_running_and_waiting_requests(server: DoorServer, stub: Any) -> None:
    names = [f"endless-{number}" for number in range(SLOTS + 1)]
    calls = [stub.Generate(smg_request(name, max_tokens=6000, ignore_eos=True), timeout=SECONDS) for name in names]
    codes: dict[str, grpc.StatusCode] = {}

    def read(name: str, call: Any) -> None:
        codes[name] = failure_of(lambda: list(call)).code

    readers = [threading.Thread(target=read, args=pair) for pair in zip(names, calls, strict=True)]
    for reader in readers:
        reader.start()
    while (load := stub.GetLoads(vllm.GetLoadsRequest(), timeout=SECONDS).loads[0]).num_total_reqs <= SLOTS:
        pass
    assert (load.num_running_reqs, load.num_waiting_reqs, load.max_running_requests) == (SLOTS, 1, SLOTS)
    assert load.utilization == (SLOTS + 1) / SLOTS
    with grpc.insecure_channel(server.door, (("grpc.use_local_subchannel_pool", 1),)) as other:
        vllm_grpc.VllmEngineStub(other).Abort(vllm.AbortRequest(request_ids=[*names, "unknown"]), timeout=SECONDS)
    for reader in readers:
        reader.join()
    assert codes == dict.fromkeys(names, grpc.StatusCode.CANCELLED)
    while running(server):
        pass


def test_server_info_and_loads_are_reported(server: DoorServer, stub: Any) -> None:
    assert stub.HealthCheck(vllm.HealthCheckRequest(), timeout=SECONDS).healthy
    model = stub.GetModelInfo(vllm.GetModelInfoRequest(), timeout=SECONDS)
    assert (model.served_model_name, model.is_generation, model.model_path) == ("synthetic", True, "")
    assert stub.GetServerInfo(vllm.GetServerInfoRequest(), timeout=SECONDS).max_num_seqs == SLOTS
    with Client(server.target, api_key=server.key) as client:
        assert client.latency().answers > 0


def test_the_tokenizer_is_sent_as_an_archive(tmp_path: Path) -> None:
    folder = write_llama3(tmp_path / "model").path
    flags = ("--engine", "vllm", "--model", str(folder))
    with start_door(*flags, PYTHONPATH=FAKE_PATH) as server, grpc.insecure_channel(server.door) as channel:
        stub: Any = vllm_grpc.VllmEngineStub(channel)
        assert stub.GetModelInfo(vllm.GetModelInfoRequest(), timeout=SECONDS).model_path == str(folder)
        chunks = list(stub.GetTokenizer(common_pb2.GetTokenizerRequest(), timeout=SECONDS))
        data = b"".join(chunk.data for chunk in chunks)
        assert [chunk.sha256 for chunk in chunks] == [""] * (len(chunks) - 1) + [sha256(data).hexdigest()]
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.read("tokenizer.json") == (folder / "tokenizer.json").read_bytes()
            assert "tokenizer_config.json" in archive.namelist()


def test_a_port_for_smg_beyond_loopback_needs_insecure() -> None:
    with (
        pytest.raises(AssertionError, match="plaintext to other machines; use --insecure"),
        start_server("--engine", "synthetic", "--door", "smg", "--door-listen", "0.0.0.0:0", until="door_open"),
    ):
        pass


def test_there_is_no_port_for_smg_by_default() -> None:
    with start_server("--engine", "synthetic") as server, connect(server.target) as caller:
        assert caller.model.model == "synthetic"
        failure = failure_of(
            lambda: vllm_grpc.VllmEngineStub(caller.channel).HealthCheck(vllm.HealthCheckRequest(), timeout=SECONDS)
        )
        assert failure.code is grpc.StatusCode.UNIMPLEMENTED
