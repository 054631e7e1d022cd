"""The engine for asyncio programs."""

import asyncio
import json
import multiprocessing
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import llguidance

from ..._version import IS_NEWEST
from ...config import VllmConfig
from ...engine.arg_utils import AsyncEngineArgs
from ...exceptions import VLLMValidationError
from ...lora.request import LoRARequest
from ...outputs import CompletionOutput, Logprob, RequestOutput, RequestStateStats
from ...sampling_params import RequestOutputKind, SamplingParams
from ...usage.usage_lib import UsageContext
from ..metrics.loggers import AggregateStatLoggerBase, PrometheusStatLogger
from ..metrics.stats import IterationStats, SchedulerStats
from .core import EngineCore, Output, Request, Step
from .exceptions import EngineDeadError

_Refusal = VLLMValidationError if IS_NEWEST else ValueError
"""The error that its checks of a request raise."""
ENGINES: list["AsyncLLM"] = []
"""All engines that were created in this process, for tests."""


class RequestOutputCollector:
    """Holds the new output of a request. Outputs that are not fetched are merged."""

    def __init__(self, output_kind: RequestOutputKind, request_id: str) -> None:
        self.aggregate = output_kind == RequestOutputKind.DELTA
        self.request_id = request_id
        self.output: RequestOutput | Exception | None = None
        self.ready = asyncio.Event()

    def put(self, output: RequestOutput | Exception) -> None:
        """Takes the next output, or the error that ends all requests."""
        if self.output is None or isinstance(output, Exception):
            self.output = output
            self.ready.set()
        elif isinstance(self.output, RequestOutput):
            self.output.add(output, aggregate=self.aggregate)

    def get_nowait(self) -> RequestOutput | None:
        """Returns the new output, or None."""
        output = self.output
        if output is not None:
            self.output = None
            self.ready.clear()
        if isinstance(output, Exception):
            raise output
        return output


class AsyncLLM:
    """Accepts requests and returns their outputs."""

    def __init__(
        self,
        vllm_config: VllmConfig,
        usage_context: UsageContext,
        stat_loggers: Sequence[Any],
        log_stats: bool,
    ) -> None:
        self.vllm_config = vllm_config
        self.usage_context = usage_context
        self.engine_core = EngineCore(vllm_config)
        self._states: dict[str, tuple[Request, RequestOutputCollector, RequestStateStats]] = {}
        self._external: dict[str, list[str]] = {}
        self._dead = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.output_handler: asyncio.Task[None] | None = None
        self.loras: set[int] = set()
        self.loss = 0.0
        """By how much each token of a prompt is less probable; above 0, every 25th most probable token also differs."""
        loggers = [_make_logger(factory, vllm_config) for factory in stat_loggers]
        if (loggers or log_stats) and not any(isinstance(given, PrometheusStatLogger) for given in loggers):
            loggers.append(PrometheusStatLogger(vllm_config, [0]))
        self._loggers = loggers
        for logger in loggers:
            logger.log_engine_initialized()
        ENGINES.append(self)

    @classmethod
    def from_engine_args(
        cls,
        engine_args: AsyncEngineArgs,
        start_engine_loop: bool = True,
        usage_context: UsageContext = UsageContext.ENGINE_CONTEXT,
        stat_loggers: list[Any] | None = None,
    ) -> "AsyncLLM":
        """Creates an engine. Blocks until it is ready."""
        assert isinstance(engine_args, AsyncEngineArgs)
        assert isinstance(usage_context, UsageContext)
        assert start_engine_loop
        config = engine_args.create_engine_config(usage_context)
        model_config = json.loads((Path(config.model_config.model) / "config.json").read_text())
        is_fp8 = "quantization" in engine_args.arguments or "quantization_config" in model_config
        if "FAKE_VLLM_HANGS_IN_LOAD" in os.environ:
            _start_process().join()
            raise RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")
        if "FAKE_VLLM_HAS_PROCESS" in os.environ:
            _start_process()
        made = cls(config, usage_context, stat_loggers or [], not engine_args.arguments.get("disable_log_stats", False))
        made.loss = float(os.environ.get("FAKE_VLLM_FP8_LOSS", "0")) if is_fp8 else 0.0
        return made

    def shutdown(self, timeout: float | None = None) -> None:
        """Ends the process. Any thread may call it."""
        self._dead = True
        if self.output_handler is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.output_handler.cancel)

    @property
    def errored(self) -> bool:
        """Whether it has failed."""
        return self._dead or (self.output_handler is not None and self.output_handler.done())

    async def add_request(
        self,
        request_id: str,
        prompt: Any,
        params: SamplingParams,
        arrival_time: float | None = None,
        lora_request: LoRARequest | None = None,
        tokenization_kwargs: dict[str, Any] | None = None,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        data_parallel_rank: int | None = None,
        prompt_text: str | None = None,
        reasoning_ended: bool | None = None,
        reasoning_parser_kwargs: dict[str, Any] | None = None,
    ) -> RequestOutputCollector:
        """Begins a request."""
        if self.errored:
            raise EngineDeadError
        self._run_output_handler()
        await asyncio.sleep(0)  # sent to the other process
        if not isinstance(params, SamplingParams):
            raise TypeError(f"params must be either SamplingParams or PoolingParams, but got {type(params).__name__}")
        assert isinstance(request_id, str)
        ids = self._check(prompt, params, lora_request)
        params = params.clone()
        internal = f"{request_id}-{uuid.uuid4().hex[:8]}"
        collector = RequestOutputCollector(params.output_kind, internal)
        request = Request(internal, ids, params, lora_request, prompt.get("cache_salt"))
        self._states[internal] = request, collector, RequestStateStats(arrival_time=arrival_time or time.time())
        self._external.setdefault(request_id, []).append(internal)
        self.engine_core.send("add", request)
        return collector

    async def abort(self, request_id: str | Iterable[str], internal: bool = False) -> None:
        """Ends requests by their ids. Ids of requests that have already ended are ignored."""
        assert not internal
        names = (request_id,) if isinstance(request_id, str) else tuple(request_id)
        ids = [internal_id for name in names for internal_id in self._external.pop(name, [])]
        for each in ids:
            request, collector, stats = self._states.pop(each)
            collector.put(_output(Output(each, [], None, "abort", None, request), stats))
        await asyncio.sleep(0)
        if ids and not self._dead:
            self.engine_core.send("abort", ids)

    async def add_lora(self, lora_request: LoRARequest) -> bool:
        """Loads an adapter."""
        if self.errored:
            raise EngineDeadError
        self._run_output_handler()
        await asyncio.sleep(0)
        if not (Path(lora_request.lora_path) / "adapter_config.json").is_file():
            raise Exception(f"Call to add_lora method failed: No adapter found for {lora_request.lora_path}")  # noqa: TRY002
        self.loras.add(lora_request.lora_int_id)
        return True

    def kill(self) -> None:
        """Kills the process of the engine, for tests."""
        self.engine_core.send("die", None)

    @property
    def aborted(self) -> list[str]:
        """The requests that the engine's process aborted while it had them, for tests."""
        return [request_id.rpartition("-")[0] for request_id in self.engine_core.aborted]

    def _check(self, prompt: Any, params: SamplingParams, lora_request: LoRARequest | None) -> list[int]:
        model = self.vllm_config.model_config
        if params.logprobs is not None and params.logprobs > model.max_logprobs >= 0:
            raise _Refusal(f"Requested sample logprobs of {params.logprobs}, which is greater than max allowed")
        if self.vllm_config.speculative_config is not None and params.min_p > 1e-5:
            raise _Refusal(
                "The min_p and logit_bias sampling parameters are not yet supported with speculative decoding."
            )
        if params.structured_outputs is not None:
            if model.skip_tokenizer_init:
                raise _Refusal("Structured outputs requires a tokenizer so it can't be used with 'skip_tokenizer_init'")
            _check_grammar(params, self.vllm_config.structured_outputs_config.backend)
        if lora_request is not None and self.vllm_config.lora_config is None:
            raise _Refusal(f"Got lora_request {lora_request} but LoRA is not enabled!")
        if not isinstance(prompt, dict) or prompt.get("type") != "token":
            raise TypeError("this fake accepts only results of tokens_input")
        ids = prompt["prompt_token_ids"]
        assert isinstance(ids, list)
        if not ids:
            raise _Refusal("The decoder prompt cannot be empty")
        if len(ids) >= model.max_model_len:
            raise _Refusal(f"The decoder prompt (length {len(ids)}) is longer than the maximum model length")
        if max(ids) >= model.get_vocab_size():
            raise _Refusal(f"Token id {max(ids)} is out of vocabulary")
        return ids

    def _prompt_logprobs(self, ids: list[int]) -> list[dict[int, Logprob] | None]:
        """Returns log probabilities of each token and of the most probable one, except for the first token."""
        places: list[dict[int, Logprob] | None] = [None]
        for place, token_id in enumerate(ids[1:]):
            logprobs = {token_id: Logprob(-1.5 - self.loss, 1)}
            if self.loss and place % 25 == 0:
                logprobs = {token_id: Logprob(-1.5 - self.loss, 2), token_id + 1: Logprob(-1.0, 1)}
            places.append(logprobs)
        return places

    def _run_output_handler(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise RuntimeError("the sockets of this engine belong to another event loop")
        if self.output_handler is None:
            self._loop = loop
            self.output_handler = loop.create_task(self._handle_outputs())

    async def _handle_outputs(self) -> None:
        try:
            while True:
                self._take(await self.engine_core.step())
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - the process would have crashed
            self._dead = True
            for _, collector, _ in self._states.values():
                collector.put(EngineDeadError(suppress_context=True))

    def _take(self, step: Step) -> None:
        now = time.monotonic()
        for output in step.outputs:
            state = self._states.get(output.request_id)
            if state is None:
                continue  # aborted in the meantime
            request, collector, stats = state
            stats.queued_ts, stats.scheduled_ts = request.queued, request.scheduled
            stats.first_token_ts = stats.first_token_ts or now
            stats.last_token_ts = now
            stats.num_generation_tokens += len(output.new_token_ids)
            request_output = _output(output, stats)
            if request.params.prompt_logprobs is not None:
                request_output.prompt_logprobs = self._prompt_logprobs(request.prompt_token_ids)
            collector.put(request_output)
            if output.finish_reason is not None:
                del self._states[output.request_id]
                self._external.pop(output.request_id.rpartition("-")[0], None)
        scheduler = SchedulerStats(step.running, step.waiting, step.kv_cache_usage, step.drafts)
        for logger in self._loggers:
            logger.record(scheduler, IterationStats() if step.outputs else None, mm_cache_stats=None, engine_idx=0)


def _start_process() -> Any:
    """Starts the process that holds the GPU. It does not watch its parent."""
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(3600,), name="EngineCore")
    process.start()
    return process


def _make_logger(factory: Any, config: VllmConfig) -> AggregateStatLoggerBase:
    assert isinstance(factory, type)
    assert issubclass(factory, AggregateStatLoggerBase)
    logger: AggregateStatLoggerBase = factory(vllm_config=config, engine_indexes=[0])
    return logger


def _check_grammar(params: SamplingParams, backend: str) -> None:
    assert params.structured_outputs is not None
    grammar = params.structured_outputs.grammar
    assert backend == "guidance", "this fake has only llguidance"
    assert grammar is not None, "this fake reads only grammars"
    error = llguidance.LLMatcher.validate_grammar(llguidance.grammar_from("grammar", grammar), None)
    if error:
        raise _Refusal(f"Grammar error: {error}")


def _output(output: Output, stats: RequestStateStats) -> RequestOutput:
    logprobs = None
    if output.logprobs is not None:
        logprobs = [
            {token_id: Logprob(value, rank) for rank, (token_id, value) in enumerate(place.items(), start=1)}
            for place in output.logprobs
        ]
    completion = CompletionOutput(
        0,
        "",
        output.new_token_ids,
        None,
        logprobs,
        None,
        output.finish_reason,
        output.stop_reason,
        spec_decode_metrics=output.request.spec_decode_metrics if output.finish_reason is not None else None,
    )
    return RequestOutput(
        output.request_id.rpartition("-")[0],
        None,
        output.request.prompt_token_ids,
        None,
        [completion],
        output.finish_reason is not None,
        stats,
        output.request.lora_request,
        output.request.cached_tokens,
    )
