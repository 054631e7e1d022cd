"""Prompts and keys never appear in logs, metrics and traces, nor keys in replies."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from doherty.v1 import generation_service_pb2, latency_service_pb2
from support.collector import running_collector
from support.command import run_doherty
from support.metrics import LISTEN, scrape
from support.security import add_key, bearer, connect_with
from support.server import start_server
from support.wire import SECONDS, Caller, request

PROMPT = "zebra-crossing"
"""A text that every input contains, and that occurs nowhere else."""


def provoke(caller: Caller, channel: grpc.Channel, keys: dict[str, str]) -> list[str]:
    """Makes successful calls, and calls that fail in every possible way. Returns all replies and errors as text."""
    stub = caller.stub
    short: dict[str, Any] = {"stopping": {"max_output_tokens": 8, "ignore_eos": True}}
    inputs: list[dict[str, Any]] = [
        {"prompt": PROMPT},
        {"messages": [{"role": "ROLE_USER", "content": PROMPT}]},
        {"raw_text": PROMPT},
        {"prompt": PROMPT, "raw_text": PROMPT},
        {"prompt": PROMPT, "messages": [{"role": "ROLE_USER", "content": PROMPT}]},
        {"messages": [{"role": "ROLE_ASSISTANT", "content": PROMPT}]},
        {"prompt": PROMPT * 100_000},
        {"prompt": PROMPT, "adapter": "none"},
        {"prompt": PROMPT, "model": "none"},
        {"prompt": PROMPT, "sampling": {"temperature": 9}},
        {"prompt": PROMPT, "continue_from": {"text": PROMPT}},
        {"prompt": PROMPT, "constraint": {"json_schema": f'{{"type": "{PROMPT}"}}'}},
        {"prompt": PROMPT, "constraint": {"regex": f"({PROMPT}"}},
        {"prompt": PROMPT, "constraint": {"grammar": f"root ::= {PROMPT}-"}},
    ]
    streams: list[Any] = [stub.StreamGenerate(request(**fields, **short), timeout=SECONDS) for fields in inputs]
    late = request(prompt=PROMPT, stopping={"max_output_tokens": 1000, "ignore_eos": True})
    streams.append(stub.StreamGenerate(late, timeout=0.2))
    calls: list[Any] = [stub.Generate.future(request(**fields, **short), timeout=SECONDS) for fields in inputs]
    count = generation_service_pb2.CountTokensRequest(prompt=PROMPT)
    calls.append(stub.CountTokens.future(count, timeout=SECONDS))
    raw: Any = channel.unary_unary("/doherty.v1.GenerationService/Generate")
    calls += [
        raw.future(PROMPT.encode(), metadata=metadata, timeout=SECONDS)
        for metadata in (
            *(bearer(token) for token in keys.values()),
            (("authorization", keys["known"]),),
            (("authorization", f"Basic {keys['known']}"),),
            bearer(keys["known"]) + bearer(keys["known"]),
            (*bearer(keys["known"]), ("x-large", "x" * 20_000)),
        )
    ]
    for stream in streams:
        with suppress(grpc.RpcError):
            list(stream)  # a stream ends only when it is read
    failed = [call for call in (*streams, *calls) if call.exception() is not None]
    assert len(failed) > 20
    replies = [f"{call.details()} {call.trailing_metadata()}" for call in failed]
    replies.append(str(caller.latency.GetLatency(latency_service_pb2.GetLatencyRequest(), timeout=SECONDS)))
    return replies


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(("--engine", "synthetic"), id="synthetic"),
        pytest.param(("--engine", "synthetic", "-o", "fail_after_tokens=5"), id="failing"),
        pytest.param((), marks=pytest.mark.model, id="llamacpp"),
    ],
)
def test_no_key_and_no_prompt_leaves_the_server(tmp_path: Path, engine: tuple[str, ...]) -> None:
    file = tmp_path / "keys.json"
    known, limited = add_key(file, "known"), add_key(file, "limited", per_minute=1)
    revoked = run_doherty("keys", "add", "revoked", "--keys-file", str(file)).stdout.strip()
    keys = {
        "known": known,
        "limited": limited,
        "revoked": revoked,
        "mistyped": known[:-8] + "deadbeef",
        "malformed": f"{known}-",
    }
    assert run_doherty("keys", "revoke", "revoked", "--keys-file", str(file)).returncode == 0
    flags = (*engine, "--keys-file", str(file), "--log-level", "debug", *LISTEN)
    with (
        running_collector() as collector,
        start_server(*flags, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{collector.address}") as server,
    ):
        with connect_with(server.target, known) as caller, grpc.insecure_channel(server.target) as channel:
            replies = provoke(caller, channel, keys)
        file.write_text(json.dumps({"keys": [{"id": known, "secret": known}]}))
        with grpc.insecure_channel(server.target) as channel:
            raw: Any = channel.unary_unary("/doherty.v1.GenerationService/GetModel")
            raw(b"", metadata=bearer(known), timeout=SECONDS)
        metrics = str([family.samples for family in scrape(server).families])
        server.process.terminate()
        server.wait_for("stopped")
        server.wait()  # the last spans are exported at the end
        traces = collector.raw.decode(errors="replace")
        log = json.dumps(server.log, ensure_ascii=False)
    assert "keys_not_read" in log
    assert "'limited'" in metrics
    assert "limited" in traces
    secrets = {token.split("_")[2][:32] for token in keys.values()}
    for text in (log, metrics, traces, *replies):
        assert not any(secret in text for secret in secrets), text
    for text in (log, metrics, traces):
        assert PROMPT not in text
