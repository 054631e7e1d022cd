"""The fake of TensorRT-LLM is as strict as the real library."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from support.hugging_face import Folder

pytestmark = pytest.mark.usefixtures("gpu")


@pytest.fixture
def torch_llm(llama: Folder) -> Iterator[Any]:
    from tensorrt_llm import LLM  # noqa: PLC0415 - the fake is importable only now

    llm = LLM(model=str(llama.path))
    yield llm
    llm.shutdown()


def params(**values: Any) -> Any:
    from tensorrt_llm import SamplingParams  # noqa: PLC0415

    return SamplingParams(**{"end_id": 1, **values})


def test_unknown_arguments_are_refused(llama: Folder) -> None:
    from tensorrt_llm import LLM, SamplingParams  # noqa: PLC0415
    from tensorrt_llm._tensorrt_engine import LLM as EngineLLM  # noqa: PLC0415, N811
    from tensorrt_llm.llmapi import BuildConfig, KvCacheConfig, NGramDecodingConfig  # noqa: PLC0415

    for kind in (LLM, EngineLLM):
        with pytest.raises(ValueError, match="LLM got invalid argument: max_beams"):
            kind(model=str(llama.path), max_beams=1)
    with pytest.raises(ValueError, match="specific to TensorRT backend"):
        LLM(model=str(llama.path), build_config=BuildConfig())
    with pytest.raises(ValueError, match="invalid argument: cuda_graph_config"):
        EngineLLM(model=str(llama.path), cuda_graph_config=None)
    with pytest.raises(ValueError, match="does not support backend tensorrt"):
        EngineLLM(model=str(llama.path), speculative_config=NGramDecodingConfig(max_draft_len=2))
    with pytest.raises(ValueError, match="disable_overlap_scheduler"):
        LLM(model=str(llama.path), speculative_config=NGramDecodingConfig(max_draft_len=2))
    with pytest.raises(ValueError, match="Extra inputs"):
        KvCacheConfig(reuse=True)  # type: ignore[call-arg]  # intended
    with pytest.raises(TypeError, match="unexpected keyword"):
        SamplingParams(max_new_tokens=1)  # type: ignore[call-arg]  # intended
    with pytest.raises(RuntimeError, match="Only 1 GPUs"):
        LLM(model=str(llama.path), tensor_parallel_size=2)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"temperature": 1}, "incompatible constructor arguments"),
        ({"max_tokens": 0}, "incompatible constructor arguments"),
        ({"seed": -1}, "incompatible constructor arguments"),
        ({"repetition_penalty": 0.0}, "Incorrect sampling config"),
    ],
)
async def test_values_that_the_bindings_refuse_fail_at_the_request(
    torch_llm: Any, values: dict[str, Any], error: str
) -> None:
    from tensorrt_llm.executor import RequestError  # noqa: PLC0415

    with pytest.raises(RequestError, match=error):
        torch_llm.generate_async([5], params(**values))


def test_a_request_can_have_only_one_guide() -> None:
    from tensorrt_llm.llmapi import GuidedDecodingParams  # noqa: PLC0415

    with pytest.raises(ValueError, match="Only one guide"):
        params(guided_decoding=GuidedDecodingParams(regex="a", grammar="b"))
    with pytest.raises(ValueError, match="top_p=2"):
        params(top_p=2)


async def test_texts_are_refused(torch_llm: Any) -> None:
    with pytest.raises(TypeError, match="token ids alone"):
        torch_llm.generate_async("Hello", params())


async def test_answers_have_32_tokens_by_default(torch_llm: Any) -> None:
    result = await torch_llm.generate_async([5], params(ignore_eos=True))
    assert (len(result.outputs[0].token_ids), result.outputs[0].finish_reason) == (32, "length")


async def test_the_same_result_object_is_yielded_at_every_step(torch_llm: Any) -> None:
    seen = [result async for result in torch_llm.generate_async([5], params(ignore_eos=True), streaming=True)]
    assert all(each is seen[0] for each in seen)
    assert len(seen) == len(seen[0].outputs[0].token_ids) == 32


def test_a_result_belongs_to_the_event_loop_of_its_request(torch_llm: Any) -> None:
    outside = torch_llm.generate_async([5], params())

    async def iterate() -> None:
        async for _ in outside:
            pass

    with pytest.raises(AssertionError, match="event loop was not present"):
        asyncio.run(iterate())


def test_only_the_executor_creates_results() -> None:
    from tensorrt_llm.llmapi import RequestOutput  # noqa: PLC0415

    with pytest.raises(RuntimeError, match="GenerationExecutor"):
        RequestOutput()
