"""The parts of vllm.grpc.engine.VllmEngine that SMG uses."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

from smg_grpc_proto.generated import common_pb2
from smg_grpc_proto.generated import vllm_engine_pb2 as vllm

from doherty.v1 import request_pb2
from doherty_service._errors import CallerLeftError, UnsupportedMethodError
from doherty_service._version import server_version
from doherty_service.gateway._answers import GatewayStream, encode, whole_message
from doherty_service.gateway._requests import to_contract
from doherty_service.gateway._tokenizer import CHUNK_BYTES, TokenizerArchive
from doherty_service.generation import Answer, WholeAnswer
from doherty_service.telemetry import GENERATE, STREAM_GENERATE, AbortCause, RequestRecord

if TYPE_CHECKING:
    from doherty_service.generation import Generations
    from doherty_service.servicers import GenerationServicer

_Task = asyncio.Task[object]


class VllmEngineServicer:
    """Serves gateways. Like those of our contract, its methods get the record of the RPC and return bytes."""

    def __init__(self, generations: "Generations", native: "GenerationServicer") -> None:
        """`native` accepts and reads the translated requests."""
        self._generations = generations
        self._native = native
        self._archive = TokenizerArchive()
        self._running: defaultdict[str, set[_Task]] = defaultdict(set)
        """The tasks of the open requests, by the gateway's request id."""
        self._aborted: set[_Task] = set()
        self._start = time.monotonic()

    async def Generate(self, request: vllm.GenerateRequest, record: RequestRecord) -> None:  # noqa: N802 - gRPC's name
        """Generates one answer: chunks and a `complete` message, or the latter alone."""
        record.set_method(STREAM_GENERATE if request.stream else GENERATE)
        with self._abortable(request.request_id, record):
            if request.stream:
                await self._stream(request, record)
            else:
                await self._whole(request, record)

    async def _stream(self, request: vllm.GenerateRequest, record: RequestRecord) -> None:
        answer = GatewayStream(record)
        self._generations.writes.add(answer)
        try:
            self._read(answer, request, whole=False)
            del request  # it may be megabytes
            await self._generations.serve(answer)
        finally:
            self._generations.end_answer(answer)
            await self._generations.writes.remove(answer)

    async def _whole(self, request: vllm.GenerateRequest, record: RequestRecord) -> None:
        answer = WholeAnswer(record)
        try:
            self._read(answer, request, whole=True)
            del request
            await self._generations.serve(answer)
            reply = whole_message(answer)
        finally:
            self._generations.end_answer(answer)
        if record.call is not None:
            await record.call.write(reply)

    def _read(self, answer: Answer, request: vllm.GenerateRequest, *, whole: bool) -> None:
        self._native.accept(answer, request_pb2.GenerateRequest(request_id=request.request_id))
        self._native.read(answer, to_contract(request, self._generations.model()), whole=whole)

    @contextmanager
    def _abortable(self, name: str, record: RequestRecord) -> Iterator[None]:
        """Allows `Abort` to end the current RPC until the end of the block.

        Raises:
            CallerLeftError: `Abort` has ended it.
        """
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("gRPC runs each RPC in a task")
        self._running[name].add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._aborted or task.uncancel():
                raise  # the caller has left
            record.abort_cause = AbortCause.CANCELLED
            raise CallerLeftError from None
        finally:
            self._aborted.discard(task)
            self._running[name].discard(task)
            if not self._running[name]:
                del self._running[name]

    async def Abort(self, request: vllm.AbortRequest, _: RequestRecord) -> bytes:  # noqa: N802 - as Generate
        """Ends requests of any connection. Requests that have already ended are ignored."""
        for name in request.request_ids:
            for task in self._running.get(name, ()):
                if task not in self._aborted:
                    self._aborted.add(task)
                    task.cancel()
        return encode(vllm.AbortResponse())

    async def HealthCheck(self, _: vllm.HealthCheckRequest, __: RequestRecord) -> bytes:  # noqa: N802 - as Generate
        """Returns whether requests are accepted."""
        is_open = self._generations.is_open
        return encode(vllm.HealthCheckResponse(healthy=is_open, message=self._generations.state.value))

    async def GetModelInfo(self, _: vllm.GetModelInfoRequest, __: RequestRecord) -> bytes:  # noqa: N802 - as Generate
        """Describes the model. The gateway calls GetTokenizer only if the paths are not empty."""
        model = self._generations.model()
        folder = "" if model.tokenizer_folder is None else str(model.tokenizer_folder)
        return encode(
            vllm.GetModelInfoResponse(
                model_path=folder,
                tokenizer_path=folder,
                served_model_name=model.model,
                is_generation=True,
                max_context_length=model.context_tokens,
                max_req_input_len=model.context_tokens - 1,
                vocab_size=model.vocabulary_size,
            )
        )

    async def GetServerInfo(self, _: vllm.GetServerInfoRequest, __: RequestRecord) -> bytes:  # noqa: N802 - as Generate
        """Describes the server."""
        return encode(
            vllm.GetServerInfoResponse(
                active_requests=self._generations.in_flight,
                uptime_seconds=time.monotonic() - self._start,
                server_type="doherty",
                data_parallel_size=1,
                max_num_seqs=self._generations.model().slots,
            )
        )

    async def GetLoads(self, _: vllm.GetLoadsRequest, __: RequestRecord) -> bytes:  # noqa: N802 - as Generate
        """Returns the current load."""
        load = self._generations.load()
        scheduler = vllm.SchedulerLoad(
            num_running_reqs=load.running,
            num_waiting_reqs=load.queued,
            num_total_reqs=load.running + load.queued,
            max_running_requests=load.slots,
            token_usage=self._generations.kv_cache_use() or 0.0,
            utilization=load.utilization,
        )
        return encode(
            vllm.GetLoadsResponse(
                timestamp=datetime.now(UTC).isoformat(), version=server_version(), dp_rank_count=1, loads=[scheduler]
            )
        )

    async def GetTokenizer(self, _: common_pb2.GetTokenizerRequest, record: RequestRecord) -> None:  # noqa: N802 - as Generate
        """Sends the files of the tokenizer, as an archive in chunks.

        Raises:
            UnsupportedMethodError: The engine has no tokenizer in Hugging Face's format.
        """
        folder, call = self._generations.model().tokenizer_folder, record.call
        if folder is None or call is None:
            raise UnsupportedMethodError
        data, digest = await self._archive.get(folder)
        for start in range(0, len(data), CHUNK_BYTES):
            end = start + CHUNK_BYTES
            chunk = common_pb2.GetTokenizerChunk(data=data[start:end], sha256=digest if end >= len(data) else "")
            await call.write(encode(chunk))

    async def _unsupported(self, _: object, __: RequestRecord) -> NoReturn:
        raise UnsupportedMethodError

    Embed = FlushCache = StartProfile = StopProfile = SubscribeKvEvents = _unsupported
