"""The engine core, a separate process in the real vLLM: receives messages, and computes each step for all requests.

FAKE_VLLM_STEP_SECONDS is the duration of a step (default: 2 ms). FAKE_VLLM_DIE_AFTER_STEPS is the number of steps after
which the process dies.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llguidance
import llguidance.hf
from transformers import PreTrainedTokenizerFast

from support.fake_model import FakeModel

from ..._version import IS_NEWEST
from ...config import VllmConfig
from ...lora.request import LoRARequest
from ...sampling_params import SamplingParams
from ..metrics.stats import RequestSpecDecodeMetrics, SpecDecodingStats

_BLOCK = 16
"""The number of tokens of a block of the KV cache."""
_BLOCKS = 4096
_LARGEST_SEED = 2**63


@dataclass
class Request:
    """A request that is waiting or running."""

    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    lora_request: LoRARequest | None
    cache_salt: str | None = None
    queued: float = field(default_factory=time.monotonic)
    scheduled: float = 0.0
    cached_tokens: int = 0
    output: list[int] = field(default_factory=list)
    matcher: Any = None
    spec_decode_metrics: RequestSpecDecodeMetrics | None = None


@dataclass
class Output:
    """The output of a step for one request."""

    request_id: str
    new_token_ids: list[int]
    logprobs: list[dict[int, float]] | None
    finish_reason: str | None
    stop_reason: int | None
    request: Request


@dataclass
class Step:
    """The output of a step."""

    outputs: list[Output]
    running: int
    waiting: int
    kv_cache_usage: float
    drafts: SpecDecodingStats | None


class EngineCore:
    """The scheduler and the model."""

    def __init__(self, config: VllmConfig) -> None:
        self._config = config
        self._model = FakeModel(Path(config.model_config.model))
        self._ll_tokenizer: llguidance.LLTokenizer | None = None
        self.pace = float(os.environ.get("FAKE_VLLM_STEP_SECONDS", "0.002"))
        self._dies_after = int(os.environ.get("FAKE_VLLM_DIE_AFTER_STEPS", "0"))
        self._steps = 0
        self.messages: deque[tuple[str, Any]] = deque()
        self.news = asyncio.Event()
        self._waiting: deque[Request] = deque()
        self._running: dict[str, Request] = {}
        self._cached: list[tuple[str | None, list[int]]] = []
        """Earlier prompts with their salts."""
        self.aborted: list[str] = []
        """Requests that were aborted before their end, for tests."""

    def send(self, kind: str, content: Any) -> None:
        """Puts a message into its input, which is read between two steps."""
        self.messages.append((kind, content))
        self.news.set()

    async def step(self) -> Step:
        """Waits until there is a request, and computes a step.

        Raises:
            Exception: An error that would end the process.
        """
        while True:
            self._read_messages()
            if self._running or self._waiting:
                break
            self.news.clear()
            await self.news.wait()
        self._admit()
        await asyncio.sleep(self.pace)
        self._read_messages()  # an abort that arrived during the step
        self._steps += 1
        if 0 < self._dies_after <= self._steps:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return self._compute()

    def _read_messages(self) -> None:
        while self.messages:
            kind, content = self.messages.popleft()
            match kind:
                case "add":
                    self._waiting.append(self._check(content))
                case "abort":
                    self._abort(content)
                case "die":
                    raise RuntimeError("killed")

    def _check(self, request: Request) -> Request:
        """Checks values that would crash the process, in the decoding of a message or in code on the GPU."""
        params = request.params
        seed = params.seed
        if seed is not None and not -_LARGEST_SEED <= seed < _LARGEST_SEED:
            raise OverflowError("Python int too large to convert to C long")
        for name in ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty"):
            if not isinstance(getattr(params, name), float | int):
                raise TypeError(f"Expected `float`, got {getattr(params, name)!r} - at `$.{name}`")
        if not all(isinstance(token_id, int) for token_id in request.prompt_token_ids):
            raise TypeError("Expected `int` - at `$.prompt_token_ids[...]`")
        return request

    def _abort(self, request_ids: Sequence[str]) -> None:
        for request_id in request_ids:
            if self._running.pop(request_id, None) is not None:
                self.aborted.append(request_id)
        kept = [request for request in self._waiting if request.request_id not in request_ids]
        self.aborted += [waiting.request_id for waiting in self._waiting if waiting.request_id in request_ids]
        self._waiting = deque(kept)

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._config.scheduler_config.max_num_seqs:
            request = self._waiting.popleft()
            request.scheduled = time.monotonic()
            if self._config.enable_prefix_caching:
                request.cached_tokens = self._cached_tokens(request)
                self._cached.append((request.cache_salt, request.prompt_token_ids))
            if request.params.structured_outputs is not None:
                grammar = llguidance.grammar_from("grammar", str(request.params.structured_outputs.grammar))
                request.matcher = llguidance.LLMatcher(self._tokenizer(), grammar, log_level=0)
            self._running[request.request_id] = request

    def _tokenizer(self) -> llguidance.LLTokenizer:
        """Creates the tokenizer at the first constraint."""
        if self._ll_tokenizer is None:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(self._config.model_config.model)
            self._ll_tokenizer = llguidance.hf.from_tokenizer(tokenizer)
        return self._ll_tokenizer

    def _cached_tokens(self, request: Request) -> int:
        """Counts the tokens in whole blocks of an earlier prompt with the same salt, without the last token."""
        most = 0
        for salt, other in self._cached:
            if salt != request.cache_salt:
                continue
            same = 0
            for mine, theirs in zip(request.prompt_token_ids[:-1], other, strict=False):
                if mine != theirs:
                    break
                same += 1
            most = max(most, same)
        return most - most % _BLOCK

    def _compute(self) -> Step:
        outputs = []
        speculative = self._config.speculative_config
        most = 0 if speculative is None else speculative.num_speculative_tokens
        stats = SpecDecodingStats(most, 0, 0, 0, [0] * most, [0] * most)
        drafted = self._drafts(len(self._running))
        for request in list(self._running.values()):
            outputs.append(self._advance(request, drafted, stats))
            if outputs[-1].finish_reason is not None:
                del self._running[request.request_id]
        used = sum(
            -(-(len(running.prompt_token_ids) + len(running.output)) // _BLOCK) for running in self._running.values()
        )
        reported = stats if stats.num_drafts else None
        return Step(outputs, len(self._running), len(self._waiting), used / _BLOCKS, reported)

    def _drafts(self, batch_size: int) -> int:
        """Returns how many tokens are drafted for each request if there are this many requests."""
        speculative = self._config.speculative_config
        if speculative is None:
            return 0
        drafts_allowed = speculative.num_speculative_tokens
        for first, _, drafts in speculative.num_speculative_tokens_per_batch_size or ():
            if first <= batch_size:
                drafts_allowed = min(drafts, speculative.num_speculative_tokens)
        return drafts_allowed

    def _observe(self, request: Request, drafted: int, accepted: int, stats: SpecDecodingStats) -> None:
        stats.observe_draft(drafted, accepted)
        config = self._config
        if IS_NEWEST and config.arguments.get("per_request_spec_decode_metrics") == "summary":
            if request.spec_decode_metrics is None:
                most = stats.num_spec_tokens
                request.spec_decode_metrics = RequestSpecDecodeMetrics(most, [0] * (most + 1))
            request.spec_decode_metrics.observe(drafted, accepted)
        assert config.speculative_config is not None
        positions = config.speculative_config.positions
        if positions is not None and len(request.prompt_token_ids) + len(request.output) + drafted > positions:
            raise RuntimeError("CUDA error: device-side assert triggered")

    def _advance(self, request: Request, drafted: int, stats: SpecDecodingStats) -> Output:
        """Generates a token, and with speculation also the part of the draft that equals the next tokens."""
        most = 1
        if drafted and request.output:
            most += (len(request.output) + len(request.prompt_token_ids)) % (drafted + 1)
            self._observe(request, drafted, most - 1, stats)
        new: list[int] = []
        logprobs: list[dict[int, float]] | None = None if request.params.logprobs is None else []
        reason, stop = None, None
        while len(new) < most and reason is None:
            ids = [*request.prompt_token_ids, *request.output]
            token_id = self._next(request, ids)
            if logprobs is not None:
                logprobs.append(self._model.logprobs(ids, token_id, request.params.logprobs or 0))
            request.output.append(token_id)
            new.append(token_id)
            reason, stop = self._finish(request, token_id)
        return Output(request.request_id, new, logprobs, reason, stop, request)

    def _next(self, request: Request, ids: list[int]) -> int:
        params = request.params
        if request.matcher is not None:
            mask = request.matcher.compute_bitmask()
            allowed = [token_id for token_id in range(len(mask) * 8) if mask[token_id // 8] >> token_id % 8 & 1]
            token_id = self._model.next(ids, allowed=allowed)
            request.matcher.consume_token(token_id)
            return token_id
        settings: tuple[object, ...] = (params.frequency_penalty, params.presence_penalty, params.repetition_penalty)
        if params.temperature:
            settings += (params.temperature, params.top_p, params.min_p, params.top_k, params.seed)
        if request.lora_request is not None:
            settings += (request.lora_request.lora_name,)
        banned = params._all_stop_token_ids if len(request.output) < params.min_tokens else ()  # noqa: SLF001 - its own
        return self._model.next(ids, repr(settings).encode(), banned=banned)

    def _finish(self, request: Request, token_id: int) -> tuple[str | None, int | None]:
        params, count = request.params, len(request.output)
        if count >= params.min_tokens and (request.matcher is None or request.matcher.is_stopped()):
            if not params.ignore_eos and token_id == params._eos_token_id:  # noqa: SLF001 - as above
                return "stop", None
            if token_id in (params.stop_token_ids or ()):
                return "stop", token_id
        longest = self._config.model_config.max_model_len
        if count >= (params.max_tokens or longest) or len(request.prompt_token_ids) + count >= longest:
            return "length", None
        return None, None
