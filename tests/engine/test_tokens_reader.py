"""Tokenizing the inputs of requests."""

import asyncio
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from doherty_engine import (
    AnswerPrefix,
    Conversation,
    EngineRequest,
    Input,
    InvalidInputError,
    RawText,
    Stopping,
    TokenIds,
    UnsupportedError,
)
from doherty_engine.text import HuggingFaceTokenizer, find_model_folder
from doherty_engine.tokens import PromptReader
from support.hugging_face import Folder, user, write_llama3, write_sentence_piece
from support.vllm import until

CONTEXT = 600


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return write_llama3(tmp_path_factory.mktemp("llama3"))


def reader_of(folder: Folder, *, context: int = CONTEXT, vocabulary_size: int | None = None) -> PromptReader:
    model = find_model_folder(str(folder.path), extra="vllm")
    return PromptReader(HuggingFaceTokenizer(model, extra="vllm"), context, vocabulary_size)


@pytest.fixture(scope="module")
def reader(folder: Folder) -> PromptReader:
    return reader_of(folder)


HELLO = RawText("Hello")


def request(content: Input = HELLO, **fields: Any) -> EngineRequest:
    return EngineRequest("key", content, **fields)


async def test_the_model_reads_the_prompt_and_the_prefix(reader: PromptReader, folder: Folder) -> None:
    reading = await reader.read(request(Conversation((user("Hi"),)), prefix=AnswerPrefix(text="The sky")))
    assert reading.prefix_ids == folder.texts("The sky")
    assert reading.token_ids == [*reading.prompt_ids, *reading.prefix_ids]
    assert reading.budget == CONTEXT - len(reading.prompt_ids)
    assert reading.max_new_tokens == reading.budget - len(reading.prefix_ids)
    assert reading.preprocess > 0


async def test_keys_take_turns_with_the_threads_for_long_prompts(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, may_end, begun = reader_of(folder, context=2000), threading.Semaphore(0), list[str]()
    encode = reader._tokenizer.encode  # noqa: SLF001 - tokenizing that takes long

    def encode_slowly(text: str) -> Sequence[int]:
        begun.append(text[0])
        assert may_end.acquire(timeout=60)
        return encode(text)

    monkeypatch.setattr(reader._tokenizer, "encode", encode_slowly)  # noqa: SLF001
    threads = min(os.cpu_count() or 1, 28)
    salts = "a" * 40 + "b"
    reads = [asyncio.create_task(reader.read(request(RawText(f"{salt} " * 550), cache_salt=salt))) for salt in salts]
    await until(lambda: begun == ["a"] * threads)
    may_end.release(2)
    await until(lambda: len(begun) == threads + 2)
    assert sorted(begun[threads:]) == ["a", "b"]
    may_end.release(len(salts))
    assert all(read.prompt_ids for read in await asyncio.gather(*reads))


@pytest.mark.parametrize("content", [RawText("How many? 🙂"), Conversation((user("How many?"),)), TokenIds((5, 6, 7))])
async def test_token_counts_equal_the_number_of_tokens_read(reader: PromptReader, content: Input) -> None:
    assert await reader.count(content) == len((await reader.read(request(content))).prompt_ids) > 0


@pytest.mark.parametrize(("words", "messages", "on_loop"), [(100, 1, True), (1000, 1, False), (1, 100, False)])
async def test_long_inputs_are_read_in_a_thread(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, words: int, messages: int, *, on_loop: bool
) -> None:
    reader = reader_of(folder, context=100_000)
    seen: list[bool] = []
    render = HuggingFaceTokenizer.render

    def spy(self: HuggingFaceTokenizer, turns: Any, *, control_tokens: bool) -> list[int]:
        seen.append(threading.current_thread() is threading.main_thread())
        return render(self, turns, control_tokens=control_tokens)

    monkeypatch.setattr(HuggingFaceTokenizer, "render", spy)
    content = Conversation((user("Hello " * words),) * messages)
    await reader.read(request(content))
    await reader.count(content)
    assert seen == [on_loop, on_loop]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"content": RawText("word " * 500)}, "raw_text"),
        ({"content": RawText("x" * 1_000_000)}, "raw_text"),
        ({"content": Conversation((user("x" * 1_000_000),), field="prompt")}, "prompt"),
        ({"content": TokenIds((5, 1000))}, "token_ids"),
        ({"stopping": Stopping(stop_token_ids=(1000,))}, "stopping.stop_token_ids"),
        ({"stopping": Stopping(max_output_tokens=CONTEXT)}, "stopping.max_output_tokens"),
        ({"prefix": AnswerPrefix(token_ids=(1000,))}, "continue_from.token_ids"),
    ],
)
async def test_an_error_names_its_field(reader: PromptReader, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        await reader.read(request(**fields))
    assert raised.value.field == field


async def test_the_models_vocabulary_may_be_smaller_than_the_tokenizers(folder: Folder) -> None:
    reader = reader_of(folder, vocabulary_size=300)
    assert await reader.count(TokenIds((299,))) == 1
    with pytest.raises(InvalidInputError, match="300 is not a token id; the vocabulary has 300 tokens"):
        await reader.count(TokenIds((300,)))


async def test_an_empty_prompt_is_refused(tmp_path: Path) -> None:
    folder = write_llama3(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("")
    with pytest.raises(InvalidInputError, match="the model has no chat template"):
        await reader_of(folder).count(Conversation((user("Hi"),)))
    (tmp_path / "chat_template.jinja").write_text("{% if messages[0].content == 'Hello' %}Hello{% endif %}")
    with pytest.raises(InvalidInputError, match="it is empty"):
        await reader_of(folder).count(Conversation((user("Hi"),)))


async def test_a_prefix_text_that_the_tokenizer_changes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as raised:
        await reader_of(write_sentence_piece(tmp_path)).read(
            request(prefix=AnswerPrefix(text="a\N{LOWER ONE EIGHTH BLOCK}b"))
        )
    assert raised.value.field == "continue_from.text"
