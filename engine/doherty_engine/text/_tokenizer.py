"""The tokenizer and the chat template of a Hugging Face model."""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from doherty_engine._engine import SamplingDefaults
from doherty_engine._errors import EngineSetupError
from doherty_engine._optional import import_optional
from doherty_engine._requests import Message
from doherty_engine.text._chat_template import (
    UNUSABLE_TEMPLATE,
    begins_answer,
    can_render,
    render_parts,
    template_failure,
    template_refusal,
)
from doherty_engine.text._control_tokens import ControlTokens, encode_exactly, looks_like_control
from doherty_engine.text._model_folder import ModelFolder
from doherty_engine.text._spelling import spelling

_log = logging.getLogger("doherty.engine")
_PURPOSE = "Reading the model's tokenizer"
_SHORT_CHARACTERS = 1_000
"""What is encoded within a millisecond."""


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
        transformers = import_optional("transformers", _PURPOSE, extra=extra)
        self._template_error: type[Exception] = import_optional("jinja2", _PURPOSE, extra=extra).TemplateError
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
        self.longest_token_bytes = max(map(len, self.pieces), default=0)
        self.eos_ids = _eos_ids(folder, self.library.eos_token_id)
        """The tokens at which the model ends its answer."""
        self.default_sampling = _default_sampling(folder)
        """What the model's generation_config.json recommends."""
        controls, words = _added_ids(self._inner)
        self.controls = ControlTokens(controls)
        """The tokens that structure a conversation."""
        self._words = ControlTokens(words)
        self.has_chat_template = bool(self.library.chat_template) and self._try_template()
        """Whether conversations can be rendered."""

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest id."""
        return len(self.pieces)

    def render(self, messages: Sequence[Message], *, control_tokens: bool = False) -> list[int]:
        """The tokens of a conversation, up to where the assistant's answer begins, or behind the one that ends it.

        Args:
            messages: the conversation.
            control_tokens: whether control tokens that its contents spell out are read as such, else as text.

        Raises:
            ValueError: the chat template refuses the conversation, or there is none; says why, for the caller.
        """
        if not self.has_chat_template:
            raise ValueError("the model has no chat template")
        if control_tokens:
            return self._encode(self._apply_template(messages))
        ids: list[int] = []
        for index, part in enumerate(render_parts(messages, self.controls, self._apply_template)):
            if index % 2:
                ids += self.controls.encode_as_text(part, self._encode_plain, self.decode)
            elif part:
                ids += self._encode(part)
        return ids

    def encode(self, text: str) -> list[int]:
        """The tokens of a text that is a whole prompt: with those that the model wants at the beginning, but once."""
        ids = self._encode(text, with_special=True)
        bos = self.library.bos_token_id
        return ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids

    def encode_answer(self, text: str) -> list[int]:
        """The tokens of a part of an answer.

        Raises:
            ValueError: the tokenizer changes this text.
        """
        try:
            return encode_exactly(text, self._encode, self.decode)
        except ValueError:
            parts = self.controls.split(text)
            if len(parts) == 1:
                raise
        # An answer has the letters of a control token only where the model wrote it letter by letter.
        if not self._words.count([text]):
            with suppress(ValueError):
                return encode_exactly(text, self._encode_plain, self.decode)
        return self.controls.encode_answer(parts, self._encode, self._encode_plain, self.decode)

    def decode(self, token_ids: Iterable[int]) -> bytes:
        """The bytes of tokens in an answer, which may end within a code point."""
        return b"".join(self.pieces[token_id] for token_id in token_ids)

    def _try_template(self) -> bool:
        if can_render(self._apply_template):
            return True
        _log.warning(UNUSABLE_TEMPLATE)
        return False

    def _apply_template(self, messages: Sequence[Message]) -> str:
        turns = [{"role": message.role.value, "content": message.content} for message in messages]
        begins = begins_answer(messages)
        try:
            text: str = self.library.apply_chat_template(turns, tokenize=False, add_generation_prompt=begins)
        except MemoryError:  # which is no fault of the conversation
            raise
        except Exception as error:  # a template is a program, and may fail in every way
            # Its own refusals are of this very class, and what jinja2 itself finds is of others.
            raise (
                template_refusal(str(error)) if type(error) is self._template_error else template_failure()
            ) from error
        return text

    def _encode(self, text: str, *, with_special: bool = False) -> list[int]:
        """The tokens of a text, with those that it spells out."""
        ids: list[int]
        if len(text) <= _SHORT_CHARACTERS:
            ids = self._inner.encode(text, add_special_tokens=with_special).ids
        else:
            # A batch is encoded without the interpreter's lock: otherwise all threads would wait, for seconds where a
            # text has megabytes, and the event loop with them. "Fast" leaves out the offsets, which nobody reads.
            ids = self._inner.encode_batch_fast([text], add_special_tokens=with_special)[0].ids
        return ids

    def _encode_plain(self, text: str) -> list[int]:
        """The tokens of a text in which no added token is looked for."""
        inner = self._inner
        if inner.normalizer is not None:
            text = inner.normalizer.normalize_str(text)
        words = (
            [text] if inner.pre_tokenizer is None else [word for word, _ in inner.pre_tokenizer.pre_tokenize_str(text)]
        )
        return [token.id for word in words for token in inner.model.tokenize(word)]


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


def _added_ids(inner: Any) -> tuple[dict[str, int], dict[str, int]]:
    """The tokens that are looked for before a text is split: control tokens, and words."""
    controls: dict[str, int] = {}
    words: dict[str, int] = {}
    for token_id, token in inner.get_added_tokens_decoder().items():
        is_control = token.special or looks_like_control(token.content)
        (controls if is_control else words)[token.content] = token_id
    return controls, words


def _eos_ids(folder: ModelFolder, own: int | None) -> frozenset[int]:
    """generation_config.json's, where Llama 3 has its second one; config.json's only where that says nothing."""
    eos = folder.read_json("generation_config.json").get("eos_token_id")
    if eos is None:
        eos = folder.read_json("config.json").get("eos_token_id")
    listed = eos if isinstance(eos, list) else [eos]
    return frozenset(token_id for token_id in (*listed, own) if isinstance(token_id, int))


def _default_sampling(folder: ModelFolder) -> SamplingDefaults:
    config = folder.read_json("generation_config.json")

    def number(name: str) -> float | None:
        value = config.get(name)
        return float(value) if isinstance(value, int | float) else None

    top_k = config.get("top_k")
    return SamplingDefaults(
        temperature=number("temperature"),
        top_p=number("top_p"),
        top_k=top_k if isinstance(top_k, int) else None,
        min_p=number("min_p"),
        repetition_penalty=number("repetition_penalty"),
    )
