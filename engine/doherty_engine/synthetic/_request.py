"""One request of the synthetic engine."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from doherty_engine import (
    Choices,
    Constraint,
    EngineFailedError,
    EngineRequest,
    Finish,
    JsonSchema,
    Regex,
    Speculation,
    TokenLogprob,
    UnsupportedError,
)
from doherty_engine.synthetic._logprobs import token_logprob
from doherty_engine.synthetic._options import Options
from doherty_engine.synthetic._schema import smallest_value
from doherty_engine.synthetic._tokenizer import decode, encode
from doherty_engine.synthetic._tokens import DrawnTokens, FixedTokens, TokenSource, pick, prompt_digest, source_key
from doherty_engine.tokens import EngineContext, PreparedInput, RequestOwner, TokenAnswer, TokenRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticContext(EngineContext):
    """What all requests of the synthetic engine share."""

    options: Options
    start_clock: Callable[[], None]
    """Called when a request is ready for steps."""
    is_stalled: Callable[[], bool]


class SyntheticRequest(TokenRequest[SyntheticContext]):
    """One request. Its whole answer is determined when it begins."""

    def __init__(self, request: EngineRequest, context: SyntheticContext, owner: RequestOwner) -> None:
        super().__init__(request, context, owner)
        self._source: TokenSource | None = None
        self._ready_at = math.inf
        """When its prefill ends."""
        self._is_announced = False
        self._position = 0
        """The position of the next token in the whole answer."""
        self._prefix_tokens = 0
        self._steps = 0
        self._tokens_per_step = context.options.tokens_per_step
        self._fail_after = context.options.fail_after_tokens

    def abort(self) -> None:
        """Ends the request, unless the engine hangs."""
        if not self._context.is_stalled():
            super().abort()

    def step(self, now: float) -> None:
        """Takes part in a step at the time `now`."""
        source = self._source
        if source is None:
            return
        if now < self._ready_at:
            self._announce()
            return
        count = self._tokens_per_step
        if self._fail_after:
            count = min(count, self._fail_after - self._generated)
            if count <= 0:
                self.fail(EngineFailedError(f"told to fail after {self._fail_after} tokens of an answer"))
                return
        self._steps += 1
        position = self._position
        self._position = position + count
        top_logprobs = self._request.top_logprobs
        logprobs: list[TokenLogprob | None] | None = None
        if count == 1:  # without comprehensions, because this runs for each request in each step
            token_ids = [source.token(position)]
            if top_logprobs is not None:
                logprobs = [token_logprob(token_ids[0], top_logprobs)]
        else:
            token_ids = [source.token(index) for index in range(position, position + count)]
            if top_logprobs is not None:
                logprobs = [token_logprob(token_id, top_logprobs) for token_id in token_ids]
        self._take(token_ids, logprobs)

    async def _generate(self, answer: TokenAnswer, prepared: PreparedInput, guide: None) -> None:
        del answer, guide
        options = self._context.options
        self._source = _source(self._request, prepared, options)
        self._position = self._prefix_tokens = len(prepared.prefix_ids)
        prefill = options.prefill_seconds
        if options.prefill_tokens_per_second:
            prefill += len(prepared.token_ids) / options.prefill_tokens_per_second
        self._ready_at = time.monotonic() + prefill
        self._context.start_clock()

    def _check(self) -> None:
        """Does nothing: this engine can continue an answer with a constraint."""

    def _run_out_of_time(self) -> None:
        if not self._context.is_stalled():
            super()._run_out_of_time()

    def _drop(self) -> None:
        """Does nothing: requests that have ended take part in no further step."""

    def _announce(self) -> None:
        """Emits `started` during the prefill."""
        if not self._is_announced and self._answer is not None:
            self._is_announced = True
            self._owner.emit(self._answer.begin())

    @property
    def _generated(self) -> int:
        return self._position - self._prefix_tokens

    def _add_counts(self, finish: Finish) -> Finish:
        if self._tokens_per_step == 1:
            return finish
        # In each step one token comes from the model itself; the others were drafted.
        drafted = self._steps * (self._tokens_per_step - 1)
        accepted = finish.output_tokens - self._prefix_tokens - self._steps
        return replace(finish, speculation=Speculation(self._steps, drafted, accepted))


def _source(request: EngineRequest, prepared: PreparedInput, options: Options) -> TokenSource:
    """The tokens of the whole answer.

    Raises:
        InvalidInputError: The constraint is invalid.
        UnsupportedError: This engine does not support it.
    """
    digest = prompt_digest(prepared.prompt_ids)
    key = source_key(digest, request.adapter, request.sampling)
    if request.constraint is not None:
        return FixedTokens(_continue(list(prepared.prefix_ids), _fitting_texts(request.constraint, key, options)))
    stopping = request.stopping
    length = options.answer_tokens[pick(digest, len(options.answer_tokens))]
    end = max(length, stopping.min_output_tokens) - 1
    return DrawnTokens(key, end, ignore_eos=stopping.ignore_eos)


def _fitting_texts(constraint: Constraint, key: bytes, options: Options) -> list[str]:
    """Texts that match the constraint. The first one is the answer without a prefix."""
    match constraint:
        case Choices(choices):
            first = pick(key, len(choices))
            return [*choices[first:], *choices[:first]]
        case JsonSchema(schema):
            return [smallest_value(schema, options.context_tokens)]
        case _:
            name = "regex" if isinstance(constraint, Regex) else "grammar"
            raise UnsupportedError(f"constraint.{name}", "this engine supports only json_schema and choices")


def _continue(prefix_ids: list[int], texts: list[str]) -> list[int]:
    """The tokens of the first text that begins with the prefix."""
    prefix = decode(prefix_ids).decode(errors="replace")
    for text in texts:
        if text.startswith(prefix):
            return prefix_ids + encode(text[len(prefix) :])
    raise UnsupportedError(
        "continue_from", "this engine has no answer that matches the constraint and begins like this"
    )
