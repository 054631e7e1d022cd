"""The answers of the TensorRT-LLM engine, including the pitfalls of the real library."""

import asyncio
import json
from dataclasses import replace

import pytest

from doherty_engine import (
    AnswerPrefix,
    Choices,
    FinishReason,
    InvalidInputError,
    RawText,
    Sampling,
    Stopping,
    TokenIds,
    UnsupportedError,
)
from support.gpu import FakeGpu
from support.hugging_face import Folder
from support.trtllm import BASE, ENDLESS, Start


@pytest.mark.parametrize("kind", ["tensorrt", "pytorch", "fast"])
async def test_both_end_tokens_of_llama_3_end_an_answer(trtllm: Start, llama: Folder, kind: str) -> None:
    """The C++ samplers omit one of the end tokens, the PyTorch sampler does not, and the other one is a stop word."""
    ends = {llama.id_of("<|end_of_text|>"), llama.id_of("<|eot_id|>")}
    async with trtllm(kind) as lab:
        stop_ids = set()
        for number in range(30):
            outcome = await lab.ask(replace(BASE, key=str(number), input=RawText(f"{number} colors")))
            if outcome.finish.reason is FinishReason.STOP:
                assert outcome.finish.stop_token_id == outcome.token_ids[-1]
                assert outcome.finish.output_tokens == outcome.token_count == len(outcome.token_ids)
                stop_ids.add(outcome.finish.stop_token_id)
        assert stop_ids == ends


@pytest.mark.parametrize("kind", ["tensorrt", "pytorch", "fast"])
async def test_an_answer_continues_at_every_cut(trtllm: Start, kind: str) -> None:
    async with trtllm(kind) as lab:
        whole = await lab.ask(BASE)
        held: tuple[int, ...] = ()
        for output in whole.outputs[:-1]:
            held += output.token_ids or ()
            rest = await lab.ask(replace(BASE, key=f"behind {len(held)}", prefix=AnswerPrefix(token_ids=held)))
            assert held + rest.token_ids == whole.token_ids
            assert whole.text.endswith(rest.text)
            assert rest.finish.output_tokens == whole.finish.output_tokens


@pytest.mark.parametrize("kind", ["tensorrt", "pytorch"])
async def test_all_outputs_of_a_step_are_delivered_in_one_call(trtllm: Start, kind: str) -> None:
    async with trtllm(kind, tokens_per_second=100) as lab:
        before = len(lab.steps)
        requests = [
            replace(BASE, key=str(number), stopping=Stopping(max_output_tokens=20, ignore_eos=True))
            for number in range(4)
        ]
        await asyncio.gather(*map(lab.ask, requests))
        assert max(len({output.key for output in step}) for step in lab.steps[before:]) == 4
        texts = {"".join(output.text for output in lab.outputs(request.key)) for request in requests}
        assert len(texts) == 1


async def test_prompts_are_rendered_by_our_template_with_one_begin_token(
    trtllm: Start, gpu: FakeGpu, llama: Folder
) -> None:
    async with trtllm("pytorch") as lab:
        outcome = await lab.ask(BASE)
        (call,) = gpu.calls("request")[2:]
    begin = llama.id_of("<|begin_of_text|>")
    assert call["prompt"][0] == begin
    assert call["prompt"].count(begin) == 1
    assert outcome.started.prompt_tokens == len(call["prompt"])
    assert llama.tokenizer.decode(call["prompt"]).strip().endswith("Name three colors.assistant")
    params = call["request"]
    assert (params["add_special_tokens"], params["detokenize"], params["max_tokens"]) == (False, False, 400)
    assert (params["temperature"], params["top_p"], params["seed"]) == (0.0, None, None)
    assert call["streaming"] is True


async def test_with_lookahead_every_answer_is_greedy_and_reported_as_such(trtllm: Start, gpu: FakeGpu) -> None:
    async with trtllm("fast") as lab:
        info = lab.engine.info()
        assert info.default_sampling.temperature == 0.0
        assert not {feature for feature in info.features if feature.startswith("sampling.")} - {"sampling.temperature"}
        assert "output.top_logprobs" not in info.features
        assert info.context_tokens == 8192 - 79  # the room that lookahead keeps for its drafts
        hot = await lab.ask(replace(BASE, key="hot", sampling=Sampling(temperature=0.8)))
        assert isinstance(hot.error, UnsupportedError)
        assert hot.error.field == "sampling.temperature"
        whole = await lab.ask(BASE)
        speculation = whole.finish.speculation
        assert speculation is not None
        assert speculation.steps + speculation.accepted_tokens == pytest.approx(whole.finish.output_tokens, abs=1)
        assert 0 < speculation.accepted_tokens <= speculation.draft_tokens
        (call,) = [each for each in gpu.calls("request") if each["request"]["max_tokens"] == 400]
        assert call["request"]["lookahead_config"]["max_ngram_size"] == 6


async def test_speculation_works_without_metrics(trtllm: Start) -> None:
    async with trtllm("fast", loses_metrics=True) as lab:
        whole = await lab.ask(BASE)
        assert whole.finish.speculation is not None
        assert whole.finish.speculation.draft_tokens == (whole.finish.speculation.steps - 1) * 5
        assert whole.finish.engine_time_to_first_token is None
    async with trtllm("pytorch", "speculation=ngram", "max_draft_len=3", loses_metrics=True) as lab:
        assert (await lab.ask(BASE)).finish.speculation is None  # the number of drafted tokens is unknown


async def test_ngram_speculation_reports_its_drafts(trtllm: Start, gpu: FakeGpu) -> None:
    async with trtllm("pytorch", "speculation=ngram", "max_draft_len=3") as lab:
        assert lab.engine.info().default_sampling.temperature == 0.0
        whole = await lab.ask(BASE)
        assert whole.finish.speculation is not None
        assert whole.finish.speculation.accepted_tokens > 0
        (built,) = gpu.calls("constructor")
    assert built["arguments"]["speculative_config"] == {
        "": "NGramDecodingConfig",
        "max_draft_len": 3,
        "max_matching_ngram_size": 3,
        "is_keep_all": True,
        "is_use_oldest": True,
        "is_public_pool": False,
    }
    assert built["arguments"]["disable_overlap_scheduler"] is True


async def test_the_times_and_the_cache_of_the_engine_are_reported(trtllm: Start) -> None:
    async with trtllm("pytorch", "slots=8", "max_batch_size=8", tokens_per_second=100) as lab:
        long = replace(BASE, input=RawText("word " * 200), stopping=Stopping(max_output_tokens=3, ignore_eos=True))
        assert (await lab.ask(long)).finish.cached_tokens == 0
        finish = (await lab.ask(replace(long, key="again"))).finish
        assert finish.cached_tokens
        assert finish.cached_tokens % 32 == 0
        assert finish.engine_time_to_first_token is not None
        assert finish.engine_time_to_first_token > 0
    async with trtllm("tensorrt", tokens_per_second=100) as lab:
        assert (await lab.ask(BASE)).finish.cached_tokens is None  # the engine does not report it


async def test_cached_tokens_are_those_of_the_same_salt(trtllm: Start) -> None:
    long = replace(BASE, input=RawText("word " * 200), stopping=Stopping(max_output_tokens=3, ignore_eos=True))
    async with trtllm("pytorch") as lab:
        cached = [
            (await lab.ask(replace(long, key=f"{number}", cache_salt=salt))).finish.cached_tokens
            for number, salt in enumerate(["alice", "bob", "", "alice", ""])
        ]
    assert cached[:3] == [0, 0, 0]
    assert cached[3] == cached[4] == 992


async def test_the_time_in_the_engines_queue_is_reported(trtllm: Start) -> None:
    """The batch is smaller than the slots, which options cannot set, so that the engine itself makes requests wait."""
    async with trtllm("tensorrt", "slots=32", tokens_per_second=50) as lab:
        worker = lab.engine._context.llm._worker  # type: ignore[attr-defined]  # noqa: SLF001
        worker._batch = 1  # noqa: SLF001
        stopping = Stopping(max_output_tokens=40, ignore_eos=True)
        first, second = (replace(BASE, key=key, stopping=stopping) for key in ("first", "second"))
        outcomes = await asyncio.gather(lab.ask(first), lab.ask(second))
        waits = [outcome.started.queue for outcome in outcomes]
        assert waits[1] > waits[0]


async def test_stop_ids_are_kept_while_eos_is_ignored(trtllm: Start) -> None:
    async with trtllm("pytorch") as lab:
        whole = await lab.ask(replace(ENDLESS, key="whole", stopping=Stopping(max_output_tokens=60, ignore_eos=True)))
        stop = whole.token_ids[30]
        stopping = Stopping(max_output_tokens=60, ignore_eos=True, stop_token_ids=(stop,))
        stopped = await lab.ask(replace(ENDLESS, key="stopped", stopping=stopping))
        assert stopped.finish.stop_token_id == stop
        assert stopped.token_ids == whole.token_ids[: whole.token_ids.index(stop) + 1]


async def test_unsupported_fields_are_refused_by_name(trtllm: Start) -> None:
    async with trtllm("pytorch") as lab:
        form = replace(BASE, constraint=Choices(("a",)))
        for key, fields, field in (
            ("held", {"prefix": AnswerPrefix(text="a")}, "continue_from"),
            ("endless", {"stopping": ENDLESS.stopping}, "stopping.ignore_eos"),
        ):
            error = (await lab.ask(replace(form, key=key, **fields))).error
            assert isinstance(error, UnsupportedError)
            assert error.field == field
    async with trtllm("tensorrt", "max_num_tokens=100") as lab:
        error = (await lab.ask(replace(BASE, input=TokenIds((5,) * 101)))).error
        assert isinstance(error, InvalidInputError)
        assert (error.field, "at most 100" in str(error)) == ("token_ids", True)


async def test_a_model_without_a_chat_template_completes_texts(trtllm: Start, llama: Folder) -> None:
    file = llama.path / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config["chat_template"]
    file.write_text(json.dumps(config))
    async with trtllm("pytorch") as lab:
        features = lab.engine.info().features
        assert "raw_text" in features
        assert not {"messages", "prompt"} & features
        assert (await lab.ask(replace(BASE, input=RawText("Colors")))).text


async def test_adapters_are_sent_by_name(trtllm: Start, gpu: FakeGpu) -> None:
    (gpu.folder / "lora").mkdir()
    async with trtllm(
        "pytorch", f"adapters=sql={gpu.folder / 'lora'},tone={gpu.folder / 'lora'}", "max_lora_rank=8"
    ) as lab:
        assert lab.engine.info().adapters == ("sql", "tone")
        texts = {(await lab.ask(replace(BASE, key=name, adapter=name))).text for name in ("", "sql", "tone")}
        assert len(texts) == 3
        (built,) = gpu.calls("constructor")
        assert built["arguments"]["lora_config"]["max_lora_rank"] == 8
        assert {call["lora"] for call in gpu.calls("request")} == {None, "sql", "tone"}
