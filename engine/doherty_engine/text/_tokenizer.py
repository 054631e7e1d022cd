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
"""A text of this length is encoded within a millisecond."""


class HuggingFaceTokenizer:
    """Converts conversations and texts to tokens, and tokens to bytes. It is thread-safe.

    It always loads tokenizer.json, whatever tokenizer class the model's configuration names. Chat templates are
    rendered by transformers.
    """

    def __init__(self, folder: ModelFolder, *, extra: str) -> None:
        """Loads the tokenizer. This blocks for up to two seconds.

        Args:
            folder: The model's folder.
            extra: The extra of this distribution that error messages name if a package is missing.

        Raises:
            EngineSetupError: A package is missing, or the model has no usable tokenizer.
        """
        transformers = import_optional("transformers", _PURPOSE, extra=extra)
        self._template_error: type[Exception] = import_optional("jinja2", _PURPOSE, extra=extra).TemplateError
        if not (folder.path / "tokenizer.json").is_file():
            raise EngineSetupError(
                f"The model {folder.model} has no tokenizer.json; choose another model, or save its tokenizer with "
                "transformers' save_pretrained."
            )
        self.library: Any = None
        """The tokenizer object of transformers."""
        try:
            self.library = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder.path))
        except Exception as error:  # `tokenizers` raises bare Exceptions
            raise EngineSetupError(f"The tokenizer of {folder.model} cannot be read ({error}).") from error
        self._inner: Any = self.library.backend_tokenizer
        # tokenizer.json may enable truncation or padding, but prompts must never be changed.
        self._inner.no_truncation()
        self._inner.no_padding()
        self.pieces = _pieces(self._inner)
        """The bytes of each token in an answer, by id; empty for special tokens."""
        self.longest_token_bytes = max(map(len, self.pieces), default=0)
        self.eos_ids = _eos_ids(folder, self.library.eos_token_id)
        """The tokens with which the model ends its answer."""
        self.default_sampling = _default_sampling(folder)
        """The recommendations in the model's generation_config.json."""
        controls, words = _added_ids(self._inner)
        self.controls = ControlTokens(controls)
        """The tokens that separate the messages of a conversation."""
        self._words = ControlTokens(words)
        self.has_chat_template = bool(self.library.chat_template) and self._try_template()
        """Whether the model has a chat template that can render conversations."""

    @property
    def vocabulary_size(self) -> int:
        """The largest token id plus one."""
        return len(self.pieces)

    def render(self, messages: Sequence[Message], *, control_tokens: bool = False) -> list[int]:
        """Tokenizes a conversation, including the tokens that begin the assistant's answer.

        A conversation that ends with an answer ends after that answer.

        Args:
            messages: The conversation.
            control_tokens: Whether control tokens that message contents spell out are encoded as control tokens; if
                not, they are encoded as text.

        Raises:
            ValueError: The chat template cannot render the conversation, or there is no template. The message is meant
                for the caller.
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
        """Tokenizes a text that is a whole prompt, with exactly one BOS token at the start if the model uses one."""
        ids = self._encode(text, with_special=True)
        bos = self.library.bos_token_id
        return ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids

    def encode_answer(self, text: str) -> list[int]:
        """Tokenizes a part of an answer.

        Raises:
            ValueError: The tokenizer changes this text.
        """
        try:
            return encode_exactly(text, self._encode, self.decode)
        except ValueError:
            parts = self.controls.split(text)
            if len(parts) == 1:
                raise
        # If an answer contains the spelling of a control token, the model generated it as plain text.
        if not self._words.count([text]):
            with suppress(ValueError):
                return encode_exactly(text, self._encode_plain, self.decode)
        return self.controls.encode_answer(parts, self._encode, self._encode_plain, self.decode)

    def decode(self, token_ids: Iterable[int]) -> bytes:
        """The bytes of tokens in an answer; they may end inside a code point."""
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
        except MemoryError:  # not the caller's fault
            raise
        except Exception as error:  # a template is a program and may raise anything
            # `raise_exception` in a template raises exactly this class; jinja2's own errors are of subclasses.
            raise (
                template_refusal(str(error)) if type(error) is self._template_error else template_failure()
            ) from error
        return text

    def _encode(self, text: str, *, with_special: bool = False) -> list[int]:
        """Tokenizes a text, and recognizes added tokens in it."""
        ids: list[int]
        if len(text) <= _SHORT_CHARACTERS:
            ids = self._inner.encode(text, add_special_tokens=with_special).ids
        else:
            # Encoding a batch releases the GIL. Otherwise a text of megabytes would block all threads, and with them
            # the event loop, for seconds. The "fast" variant does not compute offsets, which are not needed.
            ids = self._inner.encode_batch_fast([text], add_special_tokens=with_special)[0].ids
        return ids

    def _encode_plain(self, text: str) -> list[int]:
        """Tokenizes a text without recognizing added tokens."""
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
    """The added tokens, which are recognized before a text is split: control tokens and words, each with its id."""
    controls: dict[str, int] = {}
    words: dict[str, int] = {}
    for token_id, token in inner.get_added_tokens_decoder().items():
        is_control = token.special or looks_like_control(token.content)
        (controls if is_control else words)[token.content] = token_id
    return controls, words


def _eos_ids(folder: ModelFolder, own: int | None) -> frozenset[int]:
    """The end tokens in generation_config.json, where Llama 3 has its second one; if there are none, in config.json."""
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
