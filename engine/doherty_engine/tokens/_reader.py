"""Tokenizes the prompt of a request, and the prefix of its answer."""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from doherty_engine._budget import input_field, output_budget
from doherty_engine._errors import InvalidInputError, UnsupportedError
from doherty_engine._requests import AnswerPrefix, Conversation, EngineRequest, Input, RawText
from doherty_engine.tokens._tokenizer import Tokenizer
from doherty_engine.tokens._turns import FairThreads

_DIRECT_CHARACTERS = 1_000
"""A text of this size is tokenized on the event loop, in about 0.4 ms. Switching to a thread and back takes 0.1 ms on
an idle machine; if the event loop is busy, the thread also waits for the interpreter's switch interval."""
_MESSAGE_CHARACTERS = 30
"""The approximate number of characters that a chat template adds to a message."""

_MAX_THREADS = 28
"""Fewer than `asyncio.to_thread` has (4 more than cores, and at most 32), so that other work always finds one."""


@dataclass(slots=True)
class PreparedInput:
    """A tokenized request."""

    prompt_ids: Sequence[int]
    prefix_ids: Sequence[int]
    budget: int
    """Maximum number of tokens of the whole answer, including the prefix."""
    preprocess: float = 0.0
    """The seconds that tokenizing took."""

    @property
    def token_ids(self) -> list[int]:
        """All tokens that the model has to read: the prompt, followed by the prefix."""
        return [*self.prompt_ids, *self.prefix_ids]

    @property
    def max_new_tokens(self) -> int:
        """Maximum number of tokens to generate."""
        return self.budget - len(self.prefix_ids)


class PromptReader:
    """Tokenizes requests: short ones directly, long ones in threads. API keys take turns with the threads."""

    def __init__(self, tokenizer: Tokenizer, context_tokens: int, vocabulary_size: int | None = None) -> None:
        """`vocabulary_size` is the size of the model's vocabulary, if the engine knows it."""
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self.vocabulary_size = min(vocabulary_size or tokenizer.vocabulary_size, tokenizer.vocabulary_size)
        """Token ids must be lower than this. Then both the tokenizer and the model know the token."""
        self._max_bytes = context_tokens * tokenizer.longest_token_bytes
        threads = min(os.cpu_count() or 1, _MAX_THREADS)
        self._threads = FairThreads(threads, per_key=threads)

    async def read(self, request: EngineRequest) -> PreparedInput:
        """Tokenizes a request.

        Raises:
            InvalidInputError: The input, the prefix, a stop token or `max_output_tokens` is invalid for this model.
            UnsupportedError: The tokenizer changes the text of a prefix, so that the answer cannot continue after it.
        """
        start = time.monotonic()
        size = _size(request.input) + (0 if request.prefix is None else len(request.prefix.text))
        if size <= _DIRECT_CHARACTERS:
            return self._read(request, start)
        return await self._threads.run(request.cache_salt, self._read, request, start)

    async def count(self, content: Input | AnswerPrefix) -> int:
        """Counts the tokens of an input, or of a prefix, as the model would read it.

        Raises:
            InvalidInputError: It cannot be tokenized.
            UnsupportedError: The tokenizer changes the text of a prefix.
        """
        if isinstance(content, AnswerPrefix):
            size, ids = len(content.text), partial(self._prefix, content)
        else:
            size, ids = _size(content), partial(self._prompt, content)
        return len(ids() if size <= _DIRECT_CHARACTERS else await asyncio.to_thread(ids))

    def _read(self, request: EngineRequest, start: float) -> PreparedInput:
        prompt_ids = self._prompt(request.input)
        prefix_ids = self._prefix(request.prefix)
        self._check_ids("stopping.stop_token_ids", request.stopping.stop_token_ids)
        budget = output_budget(request.input, len(prompt_ids), self._context_tokens, request.stopping)
        return PreparedInput(prompt_ids, prefix_ids, budget, time.monotonic() - start)

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

    def _prefix(self, prefix: AnswerPrefix | None) -> Sequence[int]:
        if prefix is None:
            return ()
        if prefix.token_ids:
            self._check_ids("continue_from.token_ids", prefix.token_ids)
            return prefix.token_ids
        if len(prefix.text.encode()) > self._max_bytes:
            raise InvalidInputError("continue_from.text", "it is too large for the model's context")
        try:
            return self._tokenizer.encode_answer(prefix.text)
        except ValueError as error:
            raise UnsupportedError("continue_from.text", f"{error}; pass token_ids instead") from error

    def _check_conversation(self, content: Conversation) -> None:
        contents = [message.content for message in content.messages]
        self._check_size(content, "".join(contents))
        # Each control token in a text is at least one token, and tokenizing it takes extra time.
        if self._tokenizer.controls.count(contents) > self._context_tokens:
            raise _too_large(content)

    def _check_size(self, content: Input, text: str) -> None:
        # Tokenizing megabytes takes seconds and cannot be interrupted.
        if len(text.encode()) > self._max_bytes:
            raise _too_large(content)

    def _check_ids(self, field: str, ids: Sequence[int]) -> None:
        if max(ids, default=0) >= self.vocabulary_size:
            raise InvalidInputError(
                field, f"{max(ids)} is not a token id; the vocabulary has {self.vocabulary_size} tokens"
            )


def _too_large(content: Input) -> InvalidInputError:
    return InvalidInputError(input_field(content), "the prompt is too large for the model's context")


def _size(content: Input) -> int:
    """The size of an input in characters, which determines the time to tokenize it."""
    if isinstance(content, Conversation):
        return sum(len(message.content) + _MESSAGE_CHARACTERS for message in content.messages)
    return len(content.text) if isinstance(content, RawText) else 0
