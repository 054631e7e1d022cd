"""Compares GetLatency with the measurements of callers and with the Prometheus metrics."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from doherty import Client, EndedRequests, Outcome, Quantiles
from doherty.cli._latency_tables import quantile_rows, state_rows
from doherty.v1 import latency_service_pb2 as wire
from doherty_service.telemetry import ANSWERING_RPCS
from support.command import run_doherty
from support.latencies import FRESH
from support.metrics import LISTEN, Scrape, scrape
from support.multiplex import opened, start
from support.security import add_key, connect_with
from support.server import start_server
from support.wire import SECONDS, Caller, connect, request

SHORT: dict[str, Any] = {"prompt": "Name three colors.", "stopping": {"max_output_tokens": 4, "ignore_eos": True}}
LONG: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 2000, "ignore_eos": True}}
NOT_OWED = {"INVALID_ARGUMENT"}


def ended(caller: Caller) -> wire.EndedRequests:
    return caller.latency.GetLatency(wire.GetLatencyRequest(), timeout=SECONDS).requests


def test_it_agrees_with_prometheus_between_two_scrapes() -> None:
    flags = ("-o", "slots=1", "-o", "tokens_per_second=200", "--max-queued-requests", "2")
    with start_server("--engine", "synthetic", *flags, *LISTEN) as server, connect(server.target) as caller:
        caller.generate(**SHORT)
        told_before = ended(caller)  # this server counts a request after its reply, and before the next call
        before = scrape(server)
        answer(caller)
        exceed_a_deadline(caller)
        caller.failure(**SHORT, raw_text="a second prompt")
        refuse_and_cancel(caller)
        now = caller.wait_until(lambda now: now.requests.total == told_before.total + 11 and now.running == 0)
        after, reported = scrape(server), now.requests

    outcomes = {(outcome.status, outcome.reason): outcome.total for outcome in reported.outcomes}
    for outcome in told_before.outcomes:
        outcomes[outcome.status, outcome.reason] -= outcome.total
    assert outcomes == {
        ("OK", ""): 3,
        ("DEADLINE_EXCEEDED", ""): 1,
        ("INVALID_ARGUMENT", "INVALID_FIELD"): 2,
        ("RESOURCE_EXHAUSTED", "QUEUE_FULL"): 2,
        ("CANCELLED", ""): 3,
    }
    by_status: Counter[str] = Counter()
    for (status, _), count in outcomes.items():
        by_status[status] += count
    assert by_status == ended_calls(after) - ended_calls(before)
    assert reported.count == reported.total == told_before.total + 11
    assert [(entry.key, entry.count) for entry in reported.by_key] == [("", reported.count)]
    (refusal,) = reported.refusals
    assert (refusal.reason, refusal.count) == ("QUEUE_FULL", after.value("doherty_refusals_total", reason="QUEUE_FULL"))

    in_time = sum(
        after.value("doherty_time_to_first_token_seconds_bucket", rpc=rpc, le="0.4") or 0 for rpc in ANSWERING_RPCS
    )
    assert reported.owed == sum(count for status, count in ended_calls(after).items() if status not in NOT_OWED)
    assert in_time == after.value("doherty_first_token_objective_total", met="yes")
    assert reported.owed - in_time == after.value("doherty_first_token_objective_total", met="no")
    assert reported.first_token_share == in_time / reported.owed < now.first_token_share
    assert not reported.time_to_first_token.HasField("p99")  # one of them was refused


def answer(caller: Caller) -> None:
    """Makes three answers, one with each RPC."""
    caller.generate(**SHORT)
    caller.stream(**SHORT)
    with opened(caller.stub) as rpc:
        rpc.send(start(1, **SHORT))
        rpc.rest()


def exceed_a_deadline(caller: Caller) -> None:
    with pytest.raises(grpc.RpcError) as late:
        caller.stub.Generate(request(**LONG), timeout=3)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    caller.wait_until(lambda now: now.running == 0)


def refuse_and_cancel(caller: Caller) -> None:
    """Makes two refusals, and cancels three requests: running, in the queue, and after a late first token."""
    first = caller.stub.StreamGenerate(request(**LONG), timeout=SECONDS)
    next(first)
    late = caller.stub.StreamGenerate(request(**LONG), timeout=SECONDS)
    caller.wait_until(lambda now: now.queued == 1)
    never = caller.stub.StreamGenerate(request(**LONG), timeout=SECONDS)
    began = caller.wait_until(lambda now: now.queued == 2).uptime.ToMilliseconds()
    assert caller.failure(**SHORT).reason == "QUEUE_FULL"
    never.cancel()
    caller.wait_until(lambda now: now.queued == 1 and now.uptime.ToMilliseconds() > began + 500)
    first.cancel()
    next(late)
    late.cancel()


def ended_calls(scraped: Scrape) -> Counter[str]:
    """Returns the requests for answers by status. The RPC of a MultiplexGenerate has no duration as a whole."""
    name = "doherty_request_duration_seconds_count"
    calls: Counter[str] = Counter()
    for labels in scraped.labels(name):
        if labels["rpc"] in ANSWERING_RPCS:
            calls[labels["status"]] += int(scraped.value(name, **labels) or 0)
    return +calls


def test_a_key_sees_its_own_rows_and_an_operator_sees_all(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    tokens = {name: add_key(keys, name, max_concurrent=1) for name in ("alice", "bob")}
    operator = add_key(keys, "ops", operator=True)
    with start_server("--engine", "synthetic", "--keys-file", str(keys)) as server:
        for token in tokens.values():
            with connect_with(server.target, token) as caller:
                caller.generate(**SHORT)
                running = caller.stub.StreamGenerate(request(**LONG), timeout=SECONDS)
                next(running)
                assert caller.failure(**SHORT).reason == "KEY_LIMIT"
                running.cancel()
        with connect_with(server.target, operator) as caller:
            caller.wait_until(lambda now: now.requests.count == 8)
        replies = {}
        for name, token in (*tokens.items(), ("ops", operator)):
            with connect_with(server.target, token) as caller:
                replies[name] = ended(caller)
        shown = run_doherty("latency", "--target", server.target, DOHERTY_API_KEY=operator)
        with Client(server.target, api_key=tokens["bob"]) as client:
            requests = client.latency().requests
    for name in tokens:
        assert [(entry.key, entry.count, entry.total) for entry in replies[name].by_key] == [(name, 4, 4)]
        assert [(refusal.reason, refusal.key, refusal.total) for refusal in replies[name].refusals] == [
            ("KEY_LIMIT", name, 2)
        ]
    assert {entry.key: entry.count for entry in replies["ops"].by_key} == {"alice": 4, "bob": 4}
    assert {(refusal.key, refusal.count) for refusal in replies["ops"].refusals} == {("alice", 2), ("bob", 2)}
    assert all((reply.count, reply.owed) == (8, 4) for reply in replies.values())
    assert requests is not None
    assert [(entry.key, entry.count) for entry in requests.by_key] == [("bob", 4)]
    assert [(outcome.status, outcome.reason, outcome.count) for outcome in requests.outcomes] == [
        ("RESOURCE_EXHAUSTED", "KEY_LIMIT", 4),
        ("CANCELLED", None, 2),
        ("OK", None, 2),
    ]
    rows = dict(line.split("  ", 1) for line in shown.stdout.splitlines() if "  " in line.strip())
    assert rows["ended"].strip() == "4 RESOURCE_EXHAUSTED KEY_LIMIT, 2 CANCELLED, 2 OK"
    assert set(rows["by key"].strip().split(", ")) == {"alice 4", "bob 4"}
    assert set(rows["refused by key"].strip().split(", ")) == {"alice 2 KEY_LIMIT", "bob 2 KEY_LIMIT"}


def test_the_table_counts_requests_without_a_first_token() -> None:
    unknown = Quantiles(None, None, None)
    sample = EndedRequests(
        count=1,
        total=1,
        outcomes=(Outcome("DEADLINE_EXCEEDED", None, 1, 1), Outcome("OK", None, 0, 7)),
        owed=1,
        first_token_share=0.0,
        time_to_first_token=unknown,
        queue=Quantiles(3.0, 3.0, 3.0),
        by_key=(),
        refusals=(),
    )
    rows = {name: values for name, *values in quantile_rows(replace(FRESH, requests=sample))}
    assert rows["first token (TTFT)"] == ["never", "never", "never"]
    assert rows["queue"] == ["3000.0", "3000.0", "3000.0"]
    assert ("ended", "1 DEADLINE_EXCEEDED") in state_rows(replace(FRESH, requests=sample))
