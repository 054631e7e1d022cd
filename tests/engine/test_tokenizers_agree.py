"""For the packaged model, llama.cpp's tokenizer and that of Hugging Face read every form of input in the same way."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from doherty_engine import AnswerPrefix, Conversation, Input, InvalidInputError, Message, RawText, Role, TokenIds
from doherty_engine.llamacpp._gguf import read_gguf
from doherty_engine.llamacpp._reader import InputReader as LlamaCppReader
from doherty_engine.llamacpp._server import LlamaServer
from doherty_engine.llamacpp._vocabulary import Vocabulary
from doherty_engine.text import HuggingFaceTokenizer, find_model_folder
from doherty_engine.tokens import PromptReader
from support.gguf import write_sentence_piece_model
from support.hugging_face import SENTENCE_PIECES, write_sentence_piece
from support.smollm2 import packaged_model, write_smollm2

pytestmark = pytest.mark.model

CONTEXT = 512
TEMPLATE = "{{ bos_token }}{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}"
PARTS = (
    *"aZ09 \t\n\r\0_'\"{}<|>é½²ßİﬀ水",
    *("\x85", "\u00a0", "\u2028", "\u3000", "\u200b", "\ufeff", "e\u0301", "\ufffd", "\U0010ffff"),
    *("hello", " world", "'s", "don't", "123", "٣٤٥", "日本", "🙂", "\U0001f469\u200d\U0001f680", "  \n\n"),
    *("<|im_start|>", "<|im_end|>", "<|im_", "end|>", "<|endoftext|>", "<file_sep>", "assistant\n"),
)


class Readers:
    """Both tokenizers, for a model in both file formats."""

    def __init__(self, file: Path, folder: Path) -> None:
        gguf = read_gguf(file)
        self.vocabulary = Vocabulary(gguf)
        self.server = LlamaServer(file, gguf=gguf, slots=1, context_tokens=CONTEXT, threads=1)
        self._llamacpp = LlamaCppReader(self.server, self.vocabulary, CONTEXT)
        self.tokenizer = HuggingFaceTokenizer(find_model_folder(str(folder), extra="vllm"), extra="vllm")
        self._hugging_face = PromptReader(self.tokenizer, CONTEXT)

    def prompt(self, content: Input) -> Sequence[int] | str:
        """Returns the tokens of a prompt, or the field that is refused."""
        by_llamacpp = outcome(lambda: self._llamacpp.prompt(content))
        by_hugging_face = outcome(lambda: self._hugging_face._prompt(content))  # noqa: SLF001 - `read` uses it
        assert by_llamacpp == by_hugging_face
        return by_llamacpp

    def held(self, part: AnswerPrefix) -> Sequence[int] | str:
        """Returns the tokens of a prefix, or the field that is refused."""
        by_llamacpp = outcome(lambda: self._llamacpp.prefix(part).ids)
        by_hugging_face = outcome(lambda: self._hugging_face._prefix(part))  # noqa: SLF001
        assert by_llamacpp == by_hugging_face
        return by_llamacpp


def outcome(read: Callable[[], Sequence[int]]) -> Sequence[int] | str:
    try:
        return tuple(read())
    except InvalidInputError as error:
        return error.field


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Readers]:
    made = Readers(packaged_model(), write_smollm2(tmp_path_factory.mktemp("smollm2")).path)
    yield made
    made.server.close()


@pytest.fixture(scope="module")
def sentence_piece(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Readers]:
    path = tmp_path_factory.mktemp("sentence-piece")
    made = Readers(
        write_sentence_piece_model(path / "model.gguf", TEMPLATE),
        write_sentence_piece(path / "folder", chat_template=TEMPLATE).path,
    )
    yield made
    made.server.close()


def texts(count: int, *, seed: int, longest: int = 30) -> list[str]:
    draw = random.Random(seed)  # noqa: S311 - test data
    return ["".join(draw.choices(PARTS, k=draw.randint(0, longest))) for _ in range(count)]


def test_end_tokens_and_control_tokens_are_the_same(readers: Readers) -> None:
    assert readers.tokenizer.pieces == readers.vocabulary.pieces
    assert readers.tokenizer.eos_ids == readers.vocabulary.end_ids
    assert [readers.prompt(RawText(text)) for text in ("<|im_end|>", "<|endoftext|>", "")] == [(2,), (0,), "raw_text"]


def test_texts_have_the_same_tokens(readers: Readers) -> None:
    for text in filter(None, texts(150, seed=1)):
        assert readers.prompt(RawText(text))


def test_prefix_texts_have_the_same_tokens(readers: Readers) -> None:
    for text in filter(None, texts(150, seed=2)):
        ids = readers.held(AnswerPrefix(text=text))
        assert isinstance(ids, tuple)
        assert readers.vocabulary.decode(ids).decode() == text


@pytest.mark.parametrize("control_tokens", [False, True])
def test_conversations_have_the_same_tokens(readers: Readers, control_tokens: bool) -> None:  # noqa: FBT001 - a parameter of the test
    contents = texts(160, seed=3, longest=8)
    roles = (Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER, Role.ASSISTANT)
    for first, last in ((0, 2), (0, 4), (1, 2), (1, 4), (0, 5)) * 8:
        messages = tuple(Message(role, contents.pop()) for role in roles[first:last])
        assert readers.prompt(Conversation(messages, control_tokens=control_tokens))


@pytest.mark.parametrize(
    ("ids", "expected"),
    [((28120, 905), (28120, 905)), ((0, 2, 1), (0, 2, 1)), ((49152,), "token_ids"), ((), "token_ids")],
)
def test_token_ids_are_accepted_alike(readers: Readers, ids: tuple[int, ...], expected: Sequence[int] | str) -> None:
    assert readers.prompt(TokenIds(ids)) == expected
    if ids:
        assert readers.held(AnswerPrefix(token_ids=ids)) == (ids if expected == ids else "continue_from.token_ids")


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "ab",
        " ab",
        "  ab",
        "ab ab\n",
        "é水🙂",
        "<s>ab",
        "<s>",
        "<s><s>ab",
        "ab</s>",
        "ab<s>ab",
        "<s",
        "<unk>",
        "<0x41>",
    ],
)
def test_sentence_piece_tokens_are_the_same(sentence_piece: Readers, text: str) -> None:
    assert sentence_piece.prompt(RawText(text))
    assert sentence_piece.prompt(Conversation((Message(Role.USER, text),)))
    held = sentence_piece.held(AnswerPrefix(text=text))
    assert isinstance(held, tuple)
    assert sentence_piece.vocabulary.decode(held).decode() == text
    assert not {1, 2} & set(held)


def test_there_is_exactly_one_begin_token(sentence_piece: Readers) -> None:
    begins = [sentence_piece.prompt(RawText(text)) for text in ("ab", "<s>ab")]
    assert begins == [(1, SENTENCE_PIECES.index("▁ab"))] * 2
