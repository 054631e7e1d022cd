"""Reads what a request gives the model: its prompt, and the part of the answer that the caller holds."""

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
class Held:
    """The part of an answer that the caller holds, both ways."""

    ids: tuple[int, ...] = ()
    text: str = ""


class InputReader:
    """Turns inputs into tokens; blocks."""

    def __init__(self, server: LlamaServer, vocabulary: Vocabulary, context_tokens: int) -> None:
        self._server = server
        self._vocabulary = vocabulary
        self._context_tokens = context_tokens
        self._most_bytes = context_tokens * max(map(len, vocabulary.pieces))

    def count(self, content: Input | AnswerPrefix) -> int:
        """Counts the tokens of a prompt or of a held part; raises as `prompt` and `held` do."""
        return len(self.held(content).ids if isinstance(content, AnswerPrefix) else self.prompt(content))

    def prompt(self, content: Input) -> tuple[int, ...]:
        """The tokens of a prompt.

        Raises:
            InvalidInputError: it has none, or the chat template or the vocabulary does not know it.
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
            raise InvalidInputError(input_field(content), "it is empty, and the model needs at least one token")
        return ids

    def _conversation(self, content: Conversation) -> tuple[int, ...]:
        controls = self._vocabulary.controls
        contents = [message.content for message in content.messages]
        self._check_size(content, "".join(contents))
        # Each is a token at least, and a piece of work of its own.
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
        """The tokens of a whole prompt, with the one that the model wants at the beginning, but once."""
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
        # Some vocabularies merge the letters of a control token to that token.
        return controls.encode_answer(parts, self._encode_plain, self._encode_plain, decode)

    def _check_size(self, content: Input, text: str) -> None:
        # Megabytes take seconds, in which nobody can break it off.
        if len(text.encode()) > self._most_bytes:
            raise _too_large(content)

    def held(self, part: AnswerPrefix | None) -> Held:
        """The tokens and the text of the part that the caller holds.

        Raises:
            InvalidInputError: the ids are unknown or end inside a code point.
            UnsupportedError: the tokenizer changes the text, so that it cannot go on exactly behind it.
        """
        if part is None:
            return Held()
        if part.token_ids:
            self.check_ids("continue_from.token_ids", part.token_ids)
            data = self._vocabulary.decode(part.token_ids)
            # A model may write bytes that are no text, and then they are its answer.
            text, used = utf_8_decode(data, "replace", False)  # noqa: FBT003 - the C function takes no keywords
            if used < len(data):
                raise InvalidInputError("continue_from.token_ids", "they end inside a character")
            return Held(part.token_ids, text)
        if len(part.text.encode()) > self._most_bytes:
            raise InvalidInputError("continue_from.text", "it is larger than the context could ever hold")
        try:
            ids = self._encode_exactly(part.text)
        except ValueError as error:
            raise UnsupportedError("continue_from.text", f"{error}; give its token ids") from error
        return Held(tuple(ids), part.text)

    def check_ids(self, field: str, ids: tuple[int, ...]) -> None:
        """Raises InvalidInputError if the model has no such tokens."""
        if max(ids, default=0) >= len(self._vocabulary):
            raise InvalidInputError(field, f"{max(ids)} is no token: the model has {len(self._vocabulary)}")


def _too_large(content: Input) -> InvalidInputError:
    return InvalidInputError(input_field(content), "the prompt is larger than the context could ever hold")
