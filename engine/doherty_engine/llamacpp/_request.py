"""Runs one request in its own thread, from its input to its last output."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from doherty_engine._budget import output_budget
from doherty_engine._errors import EngineError, EngineFailedError, OutOfResourcesError, UnsupportedError, is_shortage
from doherty_engine._outputs import Finish, FinishReason, Started, StepOutput
from doherty_engine._requests import EngineRequest
from doherty_engine._semaphore import Claim, FairSemaphore
from doherty_engine.constraints import CompiledConstraint, ConstraintCompiler, check_combination
from doherty_engine.llamacpp._answer import LlamaCppAnswer
from doherty_engine.llamacpp._chunks import Chunk, read_chunk
from doherty_engine.llamacpp._pace import PromptPace, Step
from doherty_engine.llamacpp._prompt import Prompt
from doherty_engine.llamacpp._reader import InputReader
from doherty_engine.llamacpp._sampling import sampling_fields
from doherty_engine.llamacpp._server import LlamaServer
from doherty_engine.llamacpp._slots import Slots
from doherty_engine.llamacpp._vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class LlamaCppContext:
    """The objects that all requests share."""

    server: LlamaServer
    vocabulary: Vocabulary
    reader: InputReader
    compiler: ConstraintCompiler
    compiler_turn: FairSemaphore
    """Lets few requests use the compiler at the same time, one per key."""
    kv_cache: FairSemaphore
    """Room in the KV cache, in tokens. llama.cpp cannot preempt a request, so each one reserves room for its longest
    possible answer before it starts."""
    prompt_turn: FairSemaphore
    """Lets one request at a time compute its prompt. llama.cpp itself computes prompts in the order of its slots, and
    does not call back for a request while it computes another one's prompt, so a waiting request would notice neither
    an abort nor its time limit. A long prompt takes a turn for each piece."""
    pace: PromptPace
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
        self._last_step: Step | None = None
        """When the answer got its newest token."""
        self._claim = Claim(request.cache_salt, self._submitted_at, 0)
        self.aborted = False
        self.is_read = False
        """Whether it was read, and nothing is wrong with it."""
        self.last_progress = self._submitted_at
        """When llama.cpp last called back for this request, by `time.monotonic()`."""

    def abort(self) -> None:
        """Aborts the request; llama.cpp calls back, and then stops, after each token or batch of the prompt."""
        self.aborted = True
        self._context.compiler_turn.wake()
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
        constraint = None
        if request.constraint is not None:
            if not context.compiler_turn.reserve(1, self._claim, until=None, is_cancelled=lambda: self.aborted):
                return StepOutput(request.key, finish=Finish(FinishReason.ABORTED))
            try:
                constraint = context.compiler.compile(request.constraint)
            finally:
                context.compiler_turn.release(1, self._claim)
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
        slot, cached, full = context.slots.take(self._request.cache_salt, tokens)
        use_cache = cached is not None and context.prompt_cache
        prompt = Prompt(tokens, cached if cached and use_cache else 0, context.pace)
        fields = {**self._fields(answer, constraint), "id_slot": slot.number, "cache_prompt": use_cache}
        try:
            context.server.empty_slots(full)
            self._complete(answer, prompt, fields)
            while not (prompt.is_complete or self.aborted or answer.ended):
                self._release_prompt_turn()
                self._has_prompt_turn = self._wait_for(context.prompt_turn, 1)
                if not self._has_prompt_turn:
                    answer.end_at_time_limit()  # or it was aborted
                    return
                self._complete(answer, prompt, {**fields, "cache_prompt": True})
        finally:
            if self._last_step is not None:
                context.pace.answer_ends()
            holds_others = cached is None and not prompt.has_begun
            context.slots.give_back(slot, prompt.computed, answer.generated, holds_others=holds_others)

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

    def _complete(self, answer: LlamaCppAnswer, prompt: Prompt, fields: Mapping[str, object]) -> None:
        """Computes the next piece of the prompt; if it is the last one, generates until the answer ends."""

        def on_chunk(data: Mapping[str, Any]) -> bool:
            try:
                return self._handle_chunk(answer, prompt, read_chunk(data))
            except Exception as error:  # noqa: BLE001  llama.cpp would discard it; it is raised below
                self._failure = error
                return True

        try:
            self._context.server.complete({**fields, **prompt.begin_piece()}, on_chunk)
        finally:
            prompt.end_piece()
        if self._failure is not None:
            raise self._failure

    def _handle_chunk(self, answer: LlamaCppAnswer, prompt: Prompt, chunk: Chunk) -> bool:
        """Handles a chunk; returns True if llama.cpp must stop."""
        self.last_progress = time.monotonic()
        if self.aborted:
            return True
        must_stop = chunk.prompt_left is not None and prompt.take_progress(chunk.prompt_left, chunk.prompt_seconds)
        if chunk.prompt_left is None and not prompt.is_complete:
            return False  # the end of a piece of the prompt, for which llama.cpp generates a token, too
        if chunk.generated_tokens and chunk.finish_reason is None:
            self._note_token()
        output = answer.take(chunk)
        if output is not None:
            self._context.emit(output)
        return must_stop or answer.ended

    def _note_token(self) -> None:
        if self._last_step is None:
            self._context.pace.answer_begins()  # before the next piece of a prompt is chosen
            self._release_prompt_turn()
        self._last_step = self._context.pace.note_step(self._last_step)

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
