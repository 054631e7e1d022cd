"""Load reports, and gRPC's own load balancer that uses them."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo

from doherty import Client, GenerateOptions
from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from support.orca import STREAM, LoadReport, load_report
from support.security import add_key, bearer
from support.server import start_server
from support.wire import SECONDS, connect, request

SLOTS = 4
ENDLESS = request(prompt="Hi", stopping={"max_output_tokens": 6000, "ignore_eos": True})


@contextmanager
def reports(channel: grpc.Channel, seconds: int = 0) -> Iterator[Iterator[Any]]:
    """Returns the reports that a server sends on a stream of their own."""
    report_request = RetryInfo()  # equal to OrcaLoadReportRequest on the wire
    report_request.retry_delay.seconds = seconds
    call: Any = channel.unary_stream(STREAM, None, LoadReport.FromString)(
        report_request.SerializeToString(), timeout=SECONDS
    )
    try:
        yield call
    finally:
        call.cancel()


def test_reports_follow_the_load() -> None:
    with (
        start_server("--engine", "synthetic", "-o", f"slots={SLOTS}") as server,
        connect(server.target) as caller,
        reports(caller.channel) as loads,
    ):
        first = next(loads)
        assert (first.application_utilization, first.rps_fractional, first.eps) == (0, 0, 0)
        assert first.named_metrics == {"requests_in_flight": 0}
        assert not {"rps", "cpu_utilization"} & {field.name for field, _ in first.ListFields()}
        streams = [caller.stub.StreamGenerate(ENDLESS, timeout=SECONDS) for _ in range(SLOTS + 2)]
        for stream in streams[:SLOTS]:
            next(stream)
        while (busy := next(loads)).named_metrics != {"requests_in_flight": SLOTS + 2}:
            pass
        assert 0 < busy.application_utilization < next(loads).application_utilization < (SLOTS + 2) / SLOTS
        for stream in streams:
            stream.cancel()

        caller.generate(prompt="Hi", stopping={"max_output_tokens": 1})
        while not next(loads).rps_fractional:
            pass
        hopeless = caller.stub.StreamGenerate(ENDLESS, timeout=0.0001)
        while not next(loads).eps:
            hopeless.cancel()
            hopeless = caller.stub.StreamGenerate(ENDLESS, timeout=0.05)
            with pytest.raises(grpc.RpcError):
                list(hopeless)


async def test_callers_without_a_key_get_no_load_reports(tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.json", "balancer")
    valid, invalid = request(prompt="Hi", stopping={"max_output_tokens": 1}), request()
    with start_server("--engine", "synthetic", "--keys-file", str(tmp_path / "keys.json")) as server:
        assert await load_report(server.target, invalid, *bearer(key)) is None  # no answer has been completed yet
        while (report := await load_report(server.target, valid, *bearer(key))) is None:
            pass
        assert report.rps_fractional > 0
        assert "requests_in_flight" in report.named_metrics
        assert await load_report(server.target, invalid, *bearer(key)) is not None
        for generate_request in (valid, invalid):
            assert await load_report(server.target, generate_request) is None


@contextmanager
def _out_of_band(target: str) -> Iterator[Callable[[], object]]:
    """Makes calls with gRPC's own client, which gets reports on streams of their own."""
    policy = {
        "enableOobLoadReport": True,
        "oobReportingPeriod": "1s",
        "blackoutPeriod": "1s",
        "weightUpdatePeriod": "0.5s",
    }
    config = json.dumps({"loadBalancingConfig": [{"weighted_round_robin": policy}]})
    short_request = request(prompt="Hi", stopping={"max_output_tokens": 60, "ignore_eos": True})
    with grpc.insecure_channel(target, (("grpc.service_config", config),)) as channel:
        yield lambda: GenerationServiceStub(channel).Generate(short_request, timeout=SECONDS)


@contextmanager
def _with_calls(target: str) -> Iterator[Callable[[], object]]:
    """Makes calls with the SDK, which gets reports together with its answers."""
    with Client(target, weighted=True) as client:
        yield lambda: client.generate("Hi", max_output_tokens=60, options=GenerateOptions(ignore_eos=True))


@pytest.mark.parametrize("calling", [_out_of_band, _with_calls])
def test_a_slow_server_gets_fewer_calls_from_weighted_round_robin(
    calling: Callable[[str], AbstractContextManager[Callable[[], object]]],
) -> None:
    with (
        start_server("--engine", "synthetic", "-o", "tokens_per_second=300") as fast,
        start_server("--engine", "synthetic", "-o", "tokens_per_second=100") as slow,
        calling(f"ipv4:{fast.target},{slow.target}") as call,
        ThreadPoolExecutor(6) as pool,
    ):

        def share_of_slow() -> float:
            """Returns the slow server's share of 60 calls. With plain round robin, it is one half."""
            slow.read()
            list(pool.map(lambda _: call(), range(60)))
            return sum(line["event"] == "request" for line in slow.read()) / 60

        while share_of_slow() >= 0.35:
            pass
