"""Reads what a request gives the model: its prompt, and the part of the answer that the caller holds."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from doherty_engine._budget import input_field, output_budget
from doherty_engine._errors import InvalidInputError, UnsupportedError
from doherty_engine._requests import AnswerPrefix, Conversation, EngineRequest, Input, RawText
from doherty_engine.tokens._tokenizer import Tokenizer

_DIRECT_CHARACTERS = 1_000
"""What is read in about 0.4 ms on one core. The way to a thread and back takes 0.1 ms on an idle machine, and where the
event loop is busy the thread waits for the interpreter's switch interval besides."""
_MESSAGE_CHARACTERS = 30
"""What a chat template writes around a message, about."""


@dataclass(frozen=True, slots=True)
class PreparedInput:
    """A request as the model reads it."""

    prompt_ids: Sequence[int]
    prefix_ids: Sequence[int]
    budget: int
    """How many tokens the whole answer may have, the prefix included."""
    preprocess: float = 0.0
    """Seconds that it took."""

    @property
    def token_ids(self) -> list[int]:
        """All that the model has to read: the prompt, and behind it the prefix."""
        return [*self.prompt_ids, *self.prefix_ids]

    @property
    def left(self) -> int:
        """How many tokens may still be generated."""
        return self.budget - len(self.prefix_ids)


class PromptReader:
    """Reads requests, short ones at once and long ones in a thread."""

    def __init__(self, tokenizer: Tokenizer, context_tokens: int, vocabulary_size: int | None = None) -> None:
        """`vocabulary_size` is the model's own, where the engine knows it."""
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self.vocabulary_size = min(vocabulary_size or tokenizer.vocabulary_size, tokenizer.vocabulary_size)
        """Ids are let through that are below it: of tokens that both the tokenizer and the model have."""
        self._most_bytes = context_tokens * tokenizer.longest_token_bytes

    async def read(self, request: EngineRequest) -> PreparedInput:
        """Reads a request.

        Raises:
            InvalidInputError: the input, the prefix, a stop token or the maximum is wrong for this model.
            UnsupportedError: the tokenizer changes the text of a prefix, so that nothing can go on exactly behind it.
        """
        begun = time.monotonic()
        size = _size(request.input) + (0 if request.prefix is None else len(request.prefix.text))
        if size <= _DIRECT_CHARACTERS:
            return self._read(request, begun)
        return await asyncio.to_thread(self._read, request, begun)

    async def count(self, content: Input | AnswerPrefix) -> int:
        """Counts the tokens of an input, or of a prefix, as the model would read it.

        Raises:
            InvalidInputError: it cannot be read.
            UnsupportedError: the tokenizer changes the text of a prefix.
        """
        if isinstance(content, AnswerPrefix):
            size, ids = len(content.text), partial(self._prefix, content)
        else:
            size, ids = _size(content), partial(self._prompt, content)
        return len(ids() if size <= _DIRECT_CHARACTERS else await asyncio.to_thread(ids))

    def _read(self, request: EngineRequest, begun: float) -> PreparedInput:
        prompt_ids = self._prompt(request.input)
        prefix_ids = self._prefix(request.prefix)
        self._check_ids("stopping.stop_token_ids", request.stopping.stop_token_ids)
        budget = output_budget(request.input, len(prompt_ids), self._context_tokens, request.stopping)
        return PreparedInput(prompt_ids, prefix_ids, budget, time.monotonic() - begun)

    def _prompt(self, content: Input) -> Sequence[int]:
        if isinstance(content, Conversation):
            self._check_conversation(content)
            try:
                ids = self._tokenizer.render(content.messages, control_tokens=content.control_tokens)
            except ValueError as error:
                raise InvalidInputError(content.field, str(error)) from error
        elif isinstance(content, RawText):
            self._check_size(content, content.text)
            ids = self._tokenizer.encode(content.text)
        else:
            ids = content.ids
            self._check_ids("token_ids", ids)
        if not ids:
            raise InvalidInputError(input_field(content), "it is empty; the model needs at least one token")
        return ids

    def _prefix(self, part: AnswerPrefix | None) -> Sequence[int]:
        if part is None:
            return ()
        if part.token_ids:
            self._check_ids("continue_from.token_ids", part.token_ids)
            return part.token_ids
        if len(part.text.encode()) > self._most_bytes:
            raise InvalidInputError("continue_from.text", "it is too large for the model's context")
        try:
            return self._tokenizer.encode_answer(part.text)
        except ValueError as error:
            raise UnsupportedError("continue_from.text", f"{error}; pass token_ids instead") from error

    def _check_conversation(self, content: Conversation) -> None:
        contents = [message.content for message in content.messages]
        self._check_size(content, "".join(contents))
        # Each is a token at least, and a piece of work of its own.
        if self._tokenizer.controls.count(contents) > self._context_tokens:
            raise _too_large(content)

    def _check_size(self, content: Input, text: str) -> None:
        # Megabytes take seconds, in which nobody can break it off.
        if len(text.encode()) > self._most_bytes:
            raise _too_large(content)

    def _check_ids(self, field: str, ids: Sequence[int]) -> None:
        if max(ids, default=0) >= self.vocabulary_size:
            raise InvalidInputError(
                field, f"{max(ids)} is not a token id; the vocabulary has {self.vocabulary_size} tokens"
            )


def _too_large(content: Input) -> InvalidInputError:
    return InvalidInputError(input_field(content), "the prompt is too large for the model's context")


def _size(content: Input) -> int:
    """In characters: what reading costs."""
    if isinstance(content, Conversation):
        return sum(len(message.content) + _MESSAGE_CHARACTERS for message in content.messages)
    return len(content.text) if isinstance(content, RawText) else 0
