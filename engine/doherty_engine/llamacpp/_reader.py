"""Reads what a request gives the model: its prompt, and the part of the answer that the caller holds."""

from codecs import utf_8_decode
from dataclasses import dataclass

from doherty_engine._budget import input_field
from doherty_engine._errors import InvalidInputError, UnsupportedError
from doherty_engine._requests import Conversation, HeldPart, Input, RawText
from doherty_engine.llamacpp._server import LlamaServer
from doherty_engine.llamacpp._vocabulary import Vocabulary


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
        self._most_bytes = context_tokens * max(map(len, vocabulary.pieces))

    def prompt(self, content: Input) -> tuple[int, ...]:
        """The tokens of a prompt.

        Raises:
            InvalidInputError: it has none, or the chat template or the vocabulary does not know it.
        """
        if isinstance(content, Conversation):
            try:
                text = self._server.render(content.messages)
            except ValueError as error:
                raise InvalidInputError(content.field, f"the model's chat template refuses it: {error}") from error
            ids = self._tokenize(content, text)
        elif isinstance(content, RawText):
            ids = self._tokenize(content, content.text)
        else:
            ids = content.ids
            self.check_ids("token_ids", ids)
        if not ids:
            raise InvalidInputError(input_field(content), "it is empty, and the model needs at least one token")
        return ids

    def _tokenize(self, content: Input, text: str) -> tuple[int, ...]:
        # Megabytes take seconds, in which nobody can break it off.
        if len(text.encode()) > self._most_bytes:
            raise InvalidInputError(input_field(content), "the prompt is larger than the context could ever hold")
        return self._server.tokenize(text, with_special=True)

    def held(self, part: HeldPart | None) -> Held:
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
        ids = self._server.tokenize(part.text, with_special=False)
        if self._vocabulary.decode(ids) != part.text.encode():
            raise UnsupportedError("continue_from.text", "the model's tokenizer changes this text; give its token ids")
        return Held(ids, part.text)

    def check_ids(self, field: str, ids: tuple[int, ...]) -> None:
        """Raises InvalidInputError if the model has no such tokens."""
        if max(ids, default=0) >= len(self._vocabulary):
            raise InvalidInputError(field, f"{max(ids)} is no token: the model has {len(self._vocabulary)}")
