"""`doherty keys set` and the server's default limits, on a running server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

from doherty.v1 import generation_service_pb2
from doherty_service.command import keys as keys_command
from support.command import run_doherty
from support.metrics import LISTEN, scrape_until
from support.security import add_key, connect_with
from support.server import ServerProcess, start_server
from support.wire import SECONDS, Failure, failure_of, request

SHORT: dict[str, Any] = {"prompt": "Name three colors.", "stopping": {"max_output_tokens": 3}}
ENDLESS: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 6000, "ignore_eos": True}}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    add_key(file, "watcher", max_concurrent="unlimited")
    return file


@pytest.fixture(scope="module")
def server(keys: Path) -> Iterator[ServerProcess]:
    """Runs a server whose keys have one concurrent request each, unless they have another limit."""
    engine = ("--engine", "synthetic", "-o", "tokens_per_second=200", "-o", "slots=2")
    with start_server(*engine, *LISTEN, "--keys-file", str(keys), "--key-max-concurrent", "1") as started:
        yield started


def run_keys(file: Path, *arguments: str) -> str:
    """Runs the command, checks that it succeeds, and returns its output."""
    done = run_doherty("keys", *arguments, DOHERTY_KEYS_FILE=str(file))
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_refused(failure: Failure, words: str) -> None:
    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "KEY_LIMIT")
    assert words in failure.message
    assert failure.retry_seconds


def test_a_limit_applies_from_the_next_call_and_use_is_reported(server: ServerProcess, keys: Path) -> None:
    token = add_key(keys, "alice")
    with connect_with(server.target, token) as alice:
        streams = [alice.stub.StreamGenerate(request(**ENDLESS), timeout=SECONDS)]
        next(streams[0])
        assert_refused(alice.failure(**SHORT), "1 requests running or waiting")  # the server's default
        run_keys(keys, "set", "alice", "--max-concurrent", "4", "--per-minute", "100")
        streams.append(alice.stub.StreamGenerate(request(**ENDLESS), timeout=SECONDS))
        next(streams[1])  # the second slot is taken before the other requests ask for it
        streams += [alice.stub.StreamGenerate(request(**ENDLESS), timeout=SECONDS) for _ in range(2)]
        now = scrape_until(server, lambda now: now.value("doherty_key_queued_requests", key="alice") == 2)
        assert now.value("doherty_key_running_requests", key="alice") == 2
        assert now.value("doherty_key_running_requests", key="watcher") == 0
        assert now.value("doherty_key_limit_use_ratio", key="alice", limit="max_concurrent") == 1
        assert now.value("doherty_key_limit_use_ratio", key="watcher", limit="max_concurrent") is None
        assert_refused(alice.failure(**SHORT), "4 requests running or waiting")
        metrics = str(server.wait_for("metrics")["address"])
        (line,) = (line for line in run_keys(keys, "list", "--metrics", metrics).splitlines() if "alice" in line)
        assert "4 at a time, 100 a minute" in line
        assert "[2 running, 2 waiting, 100% of max-concurrent, " in line
        listed = json.loads(run_keys(keys, "list", "--metrics", metrics, "--json"))
        use = {key["name"]: key["use"] for key in listed}["alice"]
        assert (use["running"], use["queued"], use["shares"]["max_concurrent"]) == (2, 2, 1)
        for stream in streams:
            stream.cancel()
    run_keys(keys, "set", "alice", "--max-concurrent", "default", "--per-minute", "unlimited")
    assert "unlimited a minute" in run_keys(keys, "list")


def test_tokens_of_prompts_and_answers_are_charged_and_counting_is_not(server: ServerProcess, keys: Path) -> None:
    with connect_with(server.target, add_key(keys, "bob", tokens_per_minute=100)) as bob:
        for _ in range(3):
            bob.stub.CountTokens(generation_service_pb2.CountTokensRequest(prompt="a" * 200), timeout=SECONDS)
        usage = bob.generate(prompt="Count.", stopping={"max_output_tokens": 60, "ignore_eos": True}).summary.usage
        used = (usage.prompt_tokens + usage.output_tokens) / 100
        assert used > 0.6
        metrics = scrape_until(server, lambda _: True)
        share = metrics.value("doherty_key_limit_use_ratio", key="bob", limit="tokens_per_minute")
        assert share == pytest.approx(used, abs=0.3)  # less by the tokens that were restored since then
        bob.generate(
            prompt="Count.", stopping={"max_output_tokens": 200, "ignore_eos": True}
        )  # it began below the limit
        failure = failure_of(lambda: bob.generate(**SHORT))
        assert_refused(failure, "100 tokens a minute")
        assert failure.retry_seconds is not None
        assert failure.retry_seconds > 60  # more than the allowance of a minute must be paid off
        run_keys(keys, "set", "bob", "--tokens-per-minute", "1000000")
        bob.generate(**SHORT)


def test_an_invalid_change_changes_nothing(keys: Path) -> None:
    before = keys.read_bytes()
    for arguments in (
        ("watcher",),
        ("nobody", "--weight", "2"),
        ("watcher", "--weight", "0"),
        ("watcher", "--weight", "nan"),
        ("watcher", "--per-minute", "0"),
        ("watcher", "--per-minute", "9" * 20),
        ("watcher", "--tokens-per-minute", "many"),
        ("watcher", "--highest-priority", "first"),
        ("watcher", "--adapter", "a", "--all-adapters"),
    ):
        failed = CliRunner().invoke(keys_command, ["set", "--keys-file", str(keys), *arguments])
        assert failed.exit_code == 2, arguments
    assert keys.read_bytes() == before


def test_the_use_of_keys_is_read_from_a_server(keys: Path) -> None:
    failed = run_doherty("keys", "list", "--metrics", "127.0.0.1:1", DOHERTY_KEYS_FILE=str(keys))
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)


def test_every_property_is_stored_shown_and_reset(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    run_keys(file, "add", "carol", "--weight", "2.5", "--highest-priority", "batch", "--adapter", "one")
    assert "adapters one, weight 2.5, at most batch" in run_keys(file, "list")
    run_keys(file, "set", "carol", "--tokens-per-minute", "5000", "--adapter", "two")
    assert "adapters two, 5000 tokens a minute, weight 2.5, at most batch" in run_keys(file, "list")
    taken_back = ("--weight", "1", "--highest-priority", "interactive", "--tokens-per-minute", "default")
    run_keys(file, "set", "carol", *taken_back, "--all-adapters")
    assert "no limits" in run_keys(file, "list")
    assert "weight" not in file.read_text()  # servers of older releases read the file, too
