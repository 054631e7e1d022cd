"""Reads what a request gives the model: its prompt, and the part of the answer that the caller holds."""

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

    def __init__(self, server: LlamaServer, vocabulary: Vocabulary) -> None:
        self._server = server
        self._vocabulary = vocabulary

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
            ids = self._server.tokenize(text, with_special=True)
        elif isinstance(content, RawText):
            ids = self._server.tokenize(content.text, with_special=True)
        else:
            ids = content.ids
            self.check_ids("token_ids", ids)
        if not ids:
            raise InvalidInputError(input_field(content), "it is empty, and the model needs at least one token")
        return ids

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
            try:
                return Held(part.token_ids, data.decode())
            except UnicodeDecodeError as error:
                if error.end < len(data):  # a model may write bytes that are no text, and then they are its answer
                    return Held(part.token_ids, data.decode(errors="replace"))
                raise InvalidInputError("continue_from.token_ids", "they end inside a character") from error
        ids = self._server.tokenize(part.text, with_special=False)
        if self._vocabulary.decode(ids) != part.text.encode():
            raise UnsupportedError("continue_from.text", "the model's tokenizer changes this text; give its token ids")
        return Held(ids, part.text)

    def check_ids(self, field: str, ids: tuple[int, ...]) -> None:
        """Raises InvalidInputError if the model has no such tokens."""
        if max(ids, default=0) >= len(self._vocabulary):
            raise InvalidInputError(field, f"{max(ids)} is no token: the model has {len(self._vocabulary)}")
