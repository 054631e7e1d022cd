"""The tokenizer and the chat template of a Hugging Face model."""

import json
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from doherty_engine._engine import SamplingDefaults
from doherty_engine._errors import EngineSetupError
from doherty_engine._requests import Message
from doherty_engine.text._model_folder import ModelFolder
from doherty_engine.text._spelling import spelling


class HuggingFaceTokenizer:
    """Turns conversations and texts into tokens, and knows the bytes of each.

    It reads tokenizer.json as it is, whatever class the model names, and renders with transformers' own template
    engine. Any number of threads may use it at the same time.
    """

    def __init__(self, folder: ModelFolder, *, extra: str) -> None:
        """Loads it, which takes up to a second or two; blocks.

        Args:
            folder: where its files are.
            extra: the extra of this distribution to name where a package is missing.

        Raises:
            EngineSetupError: a package is missing, or the model has no tokenizer that can be read.
        """
        transformers = _import("transformers", extra)
        self._template_error: type[Exception] = _import("jinja2", extra).TemplateError
        if not (folder.path / "tokenizer.json").is_file():
            raise EngineSetupError(
                f"The model {folder.model} has no tokenizer.json; name one that has, or save its tokenizer with "
                "transformers' save_pretrained."
            )
        self.library: Any = None
        """The tokenizer as transformers has it."""
        try:
            self.library = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder.path))
        except Exception as error:  # `tokenizers` raises bare Exceptions
            raise EngineSetupError(f"The tokenizer of {folder.model} cannot be read ({error}).") from error
        self._inner: Any = self.library.backend_tokenizer
        # The file may ask for either, and a prompt that is cut or filled up is another one.
        self._inner.no_truncation()
        self._inner.no_padding()
        self.pieces = _pieces(self._inner)
        """The bytes of each token in an answer, by id: those of special tokens are empty."""
        self.eos_ids = _eos_ids(folder, self.library.eos_token_id)
        """The tokens at which the model ends its answer."""
        self.default_sampling = _default_sampling(folder)
        """What the model's generation_config.json recommends."""

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest id."""
        return len(self.pieces)

    @property
    def has_chat_template(self) -> bool:
        """Whether conversations can be rendered."""
        return bool(self.library.chat_template)

    def render(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a conversation, up to where the assistant's answer begins.

        Raises:
            ValueError: the chat template refuses the conversation, or there is none; says why.
        """
        if not self.has_chat_template:
            raise ValueError("the model has no chat template")
        turns = [{"role": message.role.value, "content": message.content} for message in messages]
        try:
            text: str = self.library.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except self._template_error as error:
            raise ValueError(str(error)) from error
        return self._encode(text)  # the template has written the special tokens

    def encode(self, text: str) -> list[int]:
        """The tokens of a text that is a whole prompt: with those that the model wants at the beginning, but once."""
        ids: list[int] = self._inner.encode(text).ids
        bos = self.library.bos_token_id
        return ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids

    def encode_answer(self, text: str) -> list[int]:
        """The tokens of a part of an answer.

        Raises:
            ValueError: the tokenizer changes this text.
        """
        ids = self._encode(text)
        if self.decode(ids) == text.encode():
            return ids
        # SentencePiece puts a space before every text: so it is put before something else, which is taken off again.
        before = self._encode("\n")
        ids = self._encode(f"\n{text}")
        rest = ids[len(before) :]
        if ids[: len(before)] != before or self.decode(rest) != text.encode():
            raise ValueError("the tokenizer changes this text")
        return rest

    def decode(self, token_ids: Iterable[int]) -> bytes:
        """The bytes of tokens in an answer, which may end within a code point."""
        return b"".join(self.pieces[token_id] for token_id in token_ids)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        return ids


def _pieces(inner: Any) -> tuple[bytes, ...]:
    decoder = inner.decoder
    spell: Callable[[str], bytes] = spelling(None if decoder is None else json.loads(decoder.__getstate__()))
    vocabulary: dict[str, int] = inner.get_vocab(with_added_tokens=True)
    pieces = [b""] * (1 + max(vocabulary.values(), default=-1))
    for token, token_id in vocabulary.items():
        pieces[token_id] = spell(token)
    for token_id, added in inner.get_added_tokens_decoder().items():
        pieces[token_id] = b"" if added.special else added.content.encode()
    return tuple(pieces)


def _eos_ids(folder: ModelFolder, own: int | None) -> frozenset[int]:
    """generation_config.json's, where Llama 3 has its second one; config.json's only where that says nothing."""
    said = folder.read_json("generation_config.json").get("eos_token_id")
    if said is None:
        said = folder.read_json("config.json").get("eos_token_id")
    listed = said if isinstance(said, list) else [said]
    return frozenset(token_id for token_id in (*listed, own) if isinstance(token_id, int))


def _default_sampling(folder: ModelFolder) -> SamplingDefaults:
    said = folder.read_json("generation_config.json")

    def number(name: str) -> float | None:
        value = said.get(name)
        return float(value) if isinstance(value, int | float) else None

    top_k = said.get("top_k")
    return SamplingDefaults(
        temperature=number("temperature"),
        top_p=number("top_p"),
        top_k=top_k if isinstance(top_k, int) else None,
        min_p=number("min_p"),
        repetition_penalty=number("repetition_penalty"),
    )


def _import(name: str, extra: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise EngineSetupError(
            f"Reading the model's tokenizer needs the package {name}; run `pip install 'doherty[{extra}]'`."
        ) from error
