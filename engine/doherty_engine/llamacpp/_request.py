"""Runs one request in its own thread, from its input to its last output."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from doherty_engine._budget import output_budget
from doherty_engine._errors import EngineError, EngineFailedError, OutOfResourcesError, UnsupportedError, is_shortage
from doherty_engine._outputs import Finish, FinishReason, Started, StepOutput
from doherty_engine._requests import EngineRequest
from doherty_engine.constraints import CompiledConstraint, ConstraintCompiler, check_combination
from doherty_engine.llamacpp._answer import LlamaCppAnswer
from doherty_engine.llamacpp._chunks import Chunk, read_chunk
from doherty_engine.llamacpp._reader import InputReader
from doherty_engine.llamacpp._sampling import sampling_fields
from doherty_engine.llamacpp._semaphore import Claim, FairSemaphore
from doherty_engine.llamacpp._server import BATCH_TOKENS, LlamaServer
from doherty_engine.llamacpp._slots import Slots
from doherty_engine.llamacpp._vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class LlamaCppContext:
    """The objects that all requests share."""

    server: LlamaServer
    vocabulary: Vocabulary
    reader: InputReader
    compiler: ConstraintCompiler
    kv_cache: FairSemaphore
    """Room in the KV cache, in tokens. llama.cpp cannot preempt a request, so each one reserves room for its longest
    possible answer before it starts."""
    prompt_turn: FairSemaphore
    """Lets one request at a time compute its prompt. llama.cpp itself computes prompts in the order of its slots, and
    does not call back for a request while it computes another one's prompt, so a waiting request would notice neither
    an abort nor its time limit. A long prompt takes a turn for each piece of BATCH_TOKENS."""
    slots: Slots
    context_tokens: int
    prompt_cache: bool
    emit: Callable[[StepOutput], None]
    """Delivers an output; may be called from any thread."""


class LlamaCppRequest:
    """One request; also the handle by which its owner aborts it."""

    def __init__(self, request: EngineRequest, context: LlamaCppContext) -> None:
        self._request = request
        self._context = context
        self._submitted_at = time.monotonic()
        self._failure: Exception | None = None
        self._has_prompt_turn = False
        self._prompt_left = 0
        """The tokens of the prompt that are left for further pieces."""
        self._is_whole = False
        """Whether the rest of the prompt is computed in one piece, because llama.cpp has lost an earlier piece."""
        self._claim = Claim(request.cache_salt, self._submitted_at, 0)
        self.aborted = False
        self.is_read = False
        """Whether it was read, and nothing is wrong with it."""
        self.last_progress = self._submitted_at
        """When llama.cpp last called back for this request, by `time.monotonic()`."""

    def abort(self) -> None:
        """Aborts the request; llama.cpp calls back, and then stops, after each token or batch of the prompt."""
        self.aborted = True
        self._context.kv_cache.wake()
        self._context.prompt_turn.wake()

    def run(self) -> None:
        """Runs the request, and emits exactly one last output, whatever happens."""
        try:
            last = self._answer()
        except EngineError as error:
            last = StepOutput(self._request.key, error=error)
        except Exception as error:  # noqa: BLE001  report every failure; otherwise the caller would wait forever
            kind = OutOfResourcesError if is_shortage(error) else EngineFailedError
            failure: EngineError = kind(f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            last = StepOutput(self._request.key, error=failure)
        self._context.emit(last)

    def _answer(self) -> StepOutput:
        request, context = self._request, self._context
        self._check()
        prompt = context.reader.prompt(request.input)
        prefix = context.reader.prefix(request.prefix)
        if self.aborted:
            return StepOutput(request.key, finish=Finish(FinishReason.ABORTED))
        budget = output_budget(request.input, len(prompt), context.context_tokens, request.stopping)
        constraint = None if request.constraint is None else context.compiler.compile(request.constraint)
        answer = LlamaCppAnswer(request, context.vocabulary, prefix, budget, constraint)
        preprocess = time.monotonic() - self._submitted_at
        self.is_read = True
        if answer.end_if_prefix_is_complete():
            self._start(len(prompt), preprocess, queue=0.0)
            return answer.final_output()
        return self._generate_when_admitted(answer, (*prompt, *prefix.ids), constraint, len(prompt), preprocess)

    def _generate_when_admitted(
        self,
        answer: LlamaCppAnswer,
        tokens: tuple[int, ...],
        constraint: CompiledConstraint | None,
        prompt_tokens: int,
        preprocess: float,
    ) -> StepOutput:
        """Waits for room in the KV cache and for the turn to compute the prompt, and then generates."""
        context, needed = self._context, len(tokens) + answer.left
        queued_at = time.monotonic()
        self._claim = Claim(self._request.cache_salt, self._submitted_at, len(tokens))
        has_room = self._wait_for(context.kv_cache, needed)
        self._has_prompt_turn = has_room and self._wait_for(context.prompt_turn, 1)
        try:
            if not self.aborted:
                self._start(prompt_tokens, preprocess, queue=time.monotonic() - queued_at)
                if self._has_prompt_turn:
                    self._generate_in_slot(answer, tokens, constraint)
                else:
                    answer.end_at_time_limit()
            return answer.abort() if self.aborted else answer.final_output()
        finally:
            self._release_prompt_turn()
            if has_room:
                context.kv_cache.release(needed, self._claim)

    def _generate_in_slot(
        self, answer: LlamaCppAnswer, tokens: tuple[int, ...], constraint: CompiledConstraint | None
    ) -> None:
        context = self._context
        slot, may_reuse = context.slots.take(self._request.cache_salt, tokens)
        fields = {**self._fields(answer, constraint), "id_slot": slot.number}
        use_cache = may_reuse and context.prompt_cache
        try:
            self._complete(answer, {**fields, "prompt": list(tokens), "cache_prompt": use_cache})
            # It has stopped if the prompt is long. The rest follows in pieces, so that others can compute their prompts
            # in between. llama.cpp finds in the slot what was computed before.
            while self._prompt_left and not (self.aborted or answer.ended):
                self._release_prompt_turn()
                self._has_prompt_turn = self._wait_for(context.prompt_turn, 1)
                if not self._has_prompt_turn:
                    answer.end_at_time_limit()  # or it was aborted
                    return
                left = self._prompt_left = 0 if self._is_whole else max(0, self._prompt_left - BATCH_TOKENS)
                piece = list(tokens[: len(tokens) - left])
                most_tokens = {"n_predict": 0} if left else {}
                self._complete(answer, {**fields, **most_tokens, "prompt": piece, "cache_prompt": True})
                # llama.cpp empties idle slots when the KV cache is full, also one that waits for its next piece. A
                # prompt that loses its beginning again and again would never be done.
                self._is_whole = self._prompt_left > left
        finally:
            context.slots.give_back(slot)

    def _wait_for(self, semaphore: FairSemaphore, needed: int) -> bool:
        """Waits for units of a semaphore; returns False if the request was aborted, or its time limit passed first."""
        ends_at = self._request.stopping.ends_at
        return semaphore.reserve(needed, self._claim, until=ends_at, is_cancelled=lambda: self.aborted)

    def _fields(self, answer: LlamaCppAnswer, constraint: CompiledConstraint | None) -> dict[str, object]:
        """The fields of llama.cpp's request that do not depend on the slot and the part of the prompt."""
        request = self._request
        fields: dict[str, object] = {
            **sampling_fields(request.sampling, self._context.context_tokens),
            "n_predict": answer.left,
            "ignore_eos": request.stopping.ignore_eos,
            "stream": True,
            "timings_per_token": True,
            "return_progress": True,
            # llama.cpp reports token ids only together with probabilities; probabilities after sampling cost nothing.
            "n_probs": max(1, request.top_logprobs or 0),
            "post_sampling_probs": request.top_logprobs is None,
        }
        if constraint is not None:
            fields["grammar"] = constraint.grammar
        return fields

    def _complete(self, answer: LlamaCppAnswer, fields: Mapping[str, object]) -> None:
        """Runs until the answer ends, the piece of the prompt is computed, or there is too much of it for one piece."""

        def on_chunk(data: Mapping[str, Any]) -> bool:
            try:
                return self._handle_chunk(answer, read_chunk(data))
            except Exception as error:  # noqa: BLE001  llama.cpp would discard it; it is raised below
                self._failure = error
                return True

        self._context.server.complete(fields, on_chunk)
        if self._failure is not None:
            raise self._failure

    def _handle_chunk(self, answer: LlamaCppAnswer, chunk: Chunk) -> bool:
        """Handles a chunk; returns True if llama.cpp must stop."""
        self.last_progress = time.monotonic()
        if self.aborted:
            return True
        if chunk.prompt_left is None and self._prompt_left:
            return False  # the end of a piece of the prompt, for which llama.cpp generates a token, too
        if chunk.generated_tokens:
            self._release_prompt_turn()
        output = answer.take(chunk)
        if output is not None:
            self._context.emit(output)
        if chunk.prompt_left is not None and chunk.prompt_left > BATCH_TOKENS and not self._is_whole:
            # llama.cpp reports this at the start, and computes the first batch even if it must stop.
            self._prompt_left += chunk.prompt_left - BATCH_TOKENS
            return True
        return answer.ended

    def _release_prompt_turn(self) -> None:
        """Lets the next request compute its prompt, unless this was called before."""
        if self._has_prompt_turn:
            self._has_prompt_turn = False
            self._context.prompt_turn.release(1, self._claim)

    def _start(self, prompt_tokens: int, preprocess: float, queue: float) -> None:
        self._context.emit(StepOutput(self._request.key, started=Started(prompt_tokens, preprocess, queue)))

    def _check(self) -> None:
        """Refuses what llama.cpp would silently do wrong."""
        stopping = self._request.stopping
        check_combination(self._request)
        self._context.reader.check_ids("stopping.stop_token_ids", stopping.stop_token_ids)
        for token_id in stopping.stop_token_ids:
            if self._context.vocabulary.ends_inside_character(token_id):
                raise UnsupportedError(
                    "stopping.stop_token_ids",
                    f"token {token_id} ends inside a character; this engine cannot reliably detect such tokens",
                )
