"""Works on one request, from its input to its last output, in a thread of its own."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from doherty_engine._budget import output_budget
from doherty_engine._errors import EngineError, EngineFailedError, OutOfResourcesError, UnsupportedError, is_shortage
from doherty_engine._outputs import Finish, FinishReason, Started, StepOutput
from doherty_engine._requests import EngineRequest
from doherty_engine.constraints import Form, FormCompiler, check_combination
from doherty_engine.llamacpp._answer import Answer
from doherty_engine.llamacpp._chunks import read_chunk
from doherty_engine.llamacpp._pool import Pool
from doherty_engine.llamacpp._reader import InputReader
from doherty_engine.llamacpp._sampling import sampling_fields
from doherty_engine.llamacpp._server import LlamaServer
from doherty_engine.llamacpp._slots import Slots
from doherty_engine.llamacpp._vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all requests share."""

    server: LlamaServer
    vocabulary: Vocabulary
    reader: InputReader
    forms: FormCompiler
    cache: Pool
    """The KV cache, in tokens. llama.cpp cannot preempt: only what fits to its end is let in."""
    prompts: Pool
    """Turns at computing a prompt, one at a time: llama.cpp says nothing of a request while it computes another's
    prompt, so that neither an abort nor a time limit would be seen."""
    slots: Slots
    context_tokens: int
    prompt_cache: bool
    emit: Callable[[StepOutput], None]
    """Takes outputs from any thread."""


class Work:
    """One request, and the handle that its owner aborts it by."""

    def __init__(self, request: EngineRequest, shop: Workshop) -> None:
        self._request = request
        self._shop = shop
        self._submitted_at = time.monotonic()
        self._failure: Exception | None = None
        self._has_turn = False
        self.aborted = False
        self.last_progress = self._submitted_at
        """When llama.cpp was last heard of, by `time.monotonic()`."""

    def abort(self) -> None:
        """Makes the work end; llama.cpp asks for it after each token and each batch of the prompt."""
        self.aborted = True
        self._shop.cache.wake()
        self._shop.prompts.wake()

    def run(self) -> None:
        """Does the work; whatever happens, there is exactly one last output."""
        try:
            last = self._answer()
        except EngineError as error:
            last = StepOutput(self._request.key, error=error)
        except Exception as error:  # noqa: BLE001  the caller must hear of any failure, or it waits for ever
            kind = OutOfResourcesError if is_shortage(error) else EngineFailedError
            failure: EngineError = kind(f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            last = StepOutput(self._request.key, error=failure)
        self._shop.emit(last)

    def _answer(self) -> StepOutput:
        request, shop = self._request, self._shop
        self._check()
        prompt = shop.reader.prompt(request.input)
        held = shop.reader.held(request.prefix)
        if self.aborted:
            return StepOutput(request.key, finish=Finish(FinishReason.ABORTED))
        budget = output_budget(request.input, len(prompt), shop.context_tokens, request.stopping)
        form = None if request.constraint is None else shop.forms.compile(request.constraint)
        answer = Answer(request, shop.vocabulary, held, budget, form)
        preprocess = time.monotonic() - self._submitted_at
        if answer.end_in_held():
            self._start(len(prompt), preprocess, queue=0.0)
            return answer.last()
        return self._generate_in_pool(answer, (*prompt, *held.ids), form, len(prompt), preprocess)

    def _generate_in_pool(
        self, answer: Answer, tokens: tuple[int, ...], form: Form | None, prompt_tokens: int, preprocess: float
    ) -> StepOutput:
        """Waits for room to the end of the answer and for a turn at the prompt, and generates it."""
        shop, ends_at, needed = self._shop, self._request.stopping.ends_at, len(tokens) + answer.left
        waits_from = time.monotonic()
        has_room = shop.cache.reserve(needed, until=ends_at, given_up=lambda: self.aborted)
        self._has_turn = has_room and shop.prompts.reserve(1, until=ends_at, given_up=lambda: self.aborted)
        try:
            if not self.aborted:
                self._start(prompt_tokens, preprocess, queue=time.monotonic() - waits_from)
                if self._has_turn:
                    self._generate_in_slot(answer, tokens, form)
                else:
                    answer.end_by_time()
            return answer.abort() if self.aborted else answer.last()
        finally:
            self._pass_turn()
            if has_room:
                shop.cache.release(needed)

    def _generate_in_slot(self, answer: Answer, tokens: tuple[int, ...], form: Form | None) -> None:
        slot, may_reuse = self._shop.slots.take(self._request.cache_salt, tokens)
        try:
            place = {"id_slot": slot.number, "cache_prompt": may_reuse and self._shop.prompt_cache}
            self._generate(answer, tokens, form, place)
        finally:
            self._shop.slots.give_back(slot)

    def _generate(
        self, answer: Answer, tokens: tuple[int, ...], form: Form | None, place: Mapping[str, object]
    ) -> None:
        request = self._request

        def on_chunk(data: Mapping[str, Any]) -> bool:
            try:
                return self._take(answer, data)
            except Exception as error:  # noqa: BLE001  llama.cpp would swallow it; it is raised below
                self._failure = error
                return True

        fields: dict[str, object] = {
            **sampling_fields(request.sampling, self._shop.context_tokens),
            **place,
            "prompt": list(tokens),
            "n_predict": answer.left,
            "ignore_eos": request.stopping.ignore_eos,
            "stream": True,
            "timings_per_token": True,
            "return_progress": True,
            # llama.cpp tells the ids of tokens only with probabilities; those after sampling cost nothing.
            "n_probs": max(1, request.top_logprobs or 0),
            "post_sampling_probs": request.top_logprobs is None,
        }
        if form is not None:
            fields["grammar"] = form.grammar
        self._shop.server.complete(fields, on_chunk)
        if self._failure is not None:
            raise self._failure

    def _take(self, answer: Answer, data: Mapping[str, Any]) -> bool:
        """Whether llama.cpp shall end the answer."""
        self.last_progress = time.monotonic()
        if self.aborted:
            return True
        chunk = read_chunk(data)
        if chunk.generated_tokens:
            self._pass_turn()
        output = answer.take(chunk)
        if output is not None:
            self._shop.emit(output)
        return answer.ended

    def _pass_turn(self) -> None:
        """Lets the next prompt be computed, if this one's was."""
        if self._has_turn:
            self._has_turn = False
            self._shop.prompts.release(1)

    def _start(self, prompt_tokens: int, preprocess: float, queue: float) -> None:
        self._shop.emit(StepOutput(self._request.key, started=Started(prompt_tokens, preprocess, queue)))

    def _check(self) -> None:
        """Refuses what llama.cpp would get wrong without a word."""
        stopping = self._request.stopping
        check_combination(self._request)
        self._shop.reader.check_ids("stopping.stop_token_ids", stopping.stop_token_ids)
        for token_id in stopping.stop_token_ids:
            if self._shop.vocabulary.ends_inside_character(token_id):
                raise UnsupportedError(
                    "stopping.stop_token_ids",
                    f"token {token_id} ends inside a character, where this engine cannot see it for certain",
                )
