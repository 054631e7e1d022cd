"""LatencyService: the statistics of the latency recorder, and the current load."""

import time

from doherty.v1 import latency_service_pb2 as wire
from doherty.v1 import latency_service_pb2_grpc
from doherty_service import translation
from doherty_service.generation import Generations
from doherty_service.servicers._snapshots import Snapshots
from doherty_service.telemetry import LatencyRecorder, RequestRecord
from doherty_service.translation import Violations


class LatencyServicer(latency_service_pb2_grpc.LatencyServiceServicer):
    """Serves the statistics of `recorder` and the load of `generations`."""

    def __init__(self, recorder: LatencyRecorder, generations: Generations) -> None:
        self._recorder = recorder
        self._snapshots = Snapshots(recorder)
        self._generations = generations

    async def GetLatency(self, request: wire.GetLatencyRequest, record: RequestRecord) -> bytes:  # type: ignore[override]  # noqa: N802 - gRPC's name; we pass the record as the context, and return bytes
        """Summarizes the window. Also works while the model is loading and while the server drains."""
        translation.refuse_unknown(request)
        window = None
        if request.HasField("window"):
            window = request.window.seconds + request.window.nanos / 1e9
            violations = Violations()
            violations.check(window > 0, "window", "must be above 0")
            violations.raise_if_any()
        snapshot = await self._snapshots.take(window, record.caller)
        reply = translation.latency(snapshot, self._recorder.totals, record.caller.may_see)
        for cause, count in self._recorder.aborts.items():
            reply.aborts.append(translation.abort_count(cause, count))
        load = self._generations.load()
        reply.running = load.running
        reply.queued = load.queued
        reply.slots = load.slots
        reply.refusals = self._recorder.refusals.total()
        reply.engine_restarts = self._recorder.engine_restarts
        if (use := self._generations.kv_cache_use()) is not None:
            reply.kv_cache_use = use
        reply.uptime.FromNanoseconds(round((time.monotonic() - self._recorder.started) * 1e9))
        return reply.SerializeToString()
