"""Converts the prompt and the answer's prefix of a request to tokens; the prefix is what the caller already has."""

from codecs import utf_8_decode
from collections.abc import Sequence
from dataclasses import dataclass

from doherty_engine._budget import input_field
from doherty_engine._errors import InvalidInputError, UnsupportedError
from doherty_engine._requests import AnswerPrefix, Conversation, Input, RawText
from doherty_engine.llamacpp._server import LlamaServer
from doherty_engine.llamacpp._vocabulary import Vocabulary
from doherty_engine.text import encode_exactly, render_parts


@dataclass(frozen=True, slots=True)
class PrefixTokens:
    """The prefix of an answer, as tokens and as text."""

    ids: tuple[int, ...] = ()
    text: str = ""


class InputReader:
    """Converts inputs to tokens; all methods block."""

    def __init__(self, server: LlamaServer, vocabulary: Vocabulary, context_tokens: int) -> None:
        self._server = server
        self._vocabulary = vocabulary
        self._context_tokens = context_tokens
        self._max_bytes = context_tokens * max(map(len, vocabulary.pieces))

    def count(self, content: Input | AnswerPrefix) -> int:
        """Counts the tokens of a prompt or of a prefix; raises the errors of `prompt` and `prefix`."""
        return len(self.prefix(content).ids if isinstance(content, AnswerPrefix) else self.prompt(content))

    def prompt(self, content: Input) -> tuple[int, ...]:
        """Converts a prompt to tokens.

        Raises:
            InvalidInputError: The prompt is empty or too large, the chat template refuses it, or a token id is unknown.
        """
        if isinstance(content, Conversation):
            ids = self._conversation(content)
        elif isinstance(content, RawText):
            self._check_size(content, content.text)
            ids = self._encode_whole(content.text)
        else:
            ids = content.ids
            self.check_ids("token_ids", ids)
        if not ids:
            raise InvalidInputError(input_field(content), "it is empty; the model needs at least one token")
        return ids

    def _conversation(self, content: Conversation) -> tuple[int, ...]:
        controls = self._vocabulary.controls
        contents = [message.content for message in content.messages]
        self._check_size(content, "".join(contents))
        # Each control token becomes at least one token, and is encoded separately.
        if controls.count(contents) > self._context_tokens:
            raise _too_large(content)
        try:
            if content.control_tokens:
                parts = [self._server.render(content.messages)]
            else:
                parts = render_parts(content.messages, controls, self._server.render)
        except ValueError as error:
            raise InvalidInputError(content.field, str(error)) from error
        self._check_size(content, "".join(parts))
        mixed: list[str | int] = []
        for index, part in enumerate(parts):
            if index % 2:
                mixed += controls.encode_as_text(part, self._encode_plain, self._vocabulary.decode)
            else:
                mixed.append(part)
        return self._encode_whole(mixed)

    def _encode_whole(self, content: str | Sequence[str | int]) -> tuple[int, ...]:
        """Tokenizes a whole prompt, with exactly one BOS token at the start if the model uses one."""
        ids = self._server.tokenize(content, with_special=True)
        bos = self._vocabulary.bos_id
        return ids[1:] if bos is not None and ids[:2] == (bos, bos) else ids

    def _encode_plain(self, text: str) -> tuple[int, ...]:
        return self._server.tokenize(text, with_special=False)

    def _encode_exactly(self, text: str) -> list[int]:
        decode, controls = self._vocabulary.decode, self._vocabulary.controls
        try:
            return encode_exactly(text, self._encode_plain, decode)
        except ValueError:
            parts = controls.split(text)
            if len(parts) == 1:
                raise
        # Some vocabularies merge the letters of a control token into that token.
        return controls.encode_answer(parts, self._encode_plain, self._encode_plain, decode)

    def _check_size(self, content: Input, text: str) -> None:
        # Tokenizing megabytes takes seconds, and cannot be interrupted.
        if len(text.encode()) > self._max_bytes:
            raise _too_large(content)

    def prefix(self, prefix: AnswerPrefix | None) -> PrefixTokens:
        """Converts a prefix to tokens and text.

        Raises:
            InvalidInputError: A token id is unknown, the ids end inside a code point, or the text is too large.
            UnsupportedError: The tokenizer changes the text, so the answer could not continue exactly after it.
        """
        if prefix is None:
            return PrefixTokens()
        if prefix.token_ids:
            self.check_ids("continue_from.token_ids", prefix.token_ids)
            data = self._vocabulary.decode(prefix.token_ids)
            # A model may generate bytes that are not UTF-8; they are part of the answer.
            text, used = utf_8_decode(data, "replace", False)  # noqa: FBT003 - the C function takes no keywords
            if used < len(data):
                raise InvalidInputError("continue_from.token_ids", "they end inside a character")
            return PrefixTokens(prefix.token_ids, text)
        if len(prefix.text.encode()) > self._max_bytes:
            raise InvalidInputError("continue_from.text", "it is too large for the model's context")
        try:
            ids = self._encode_exactly(prefix.text)
        except ValueError as error:
            raise UnsupportedError("continue_from.text", f"{error}; pass token_ids instead") from error
        return PrefixTokens(tuple(ids), prefix.text)

    def check_ids(self, field: str, ids: tuple[int, ...]) -> None:
        """Raises InvalidInputError if one of the ids is not in the vocabulary."""
        if max(ids, default=0) >= len(self._vocabulary):
            raise InvalidInputError(
                field, f"{max(ids)} is not a token id; the vocabulary has {len(self._vocabulary)} tokens"
            )


def _too_large(content: Input) -> InvalidInputError:
    return InvalidInputError(input_field(content), "the prompt is too large for the model's context")
