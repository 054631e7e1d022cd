"""Fuzzing of all RPCs: no INTERNAL, no UNKNOWN, no crash, no hang."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import strategies as st

from support.fuzz.attack import Attack, attack, bombard
from support.fuzz.inputs import Input, constrained_inputs, inputs
from support.fuzz.rpcs import offered
from support.server import ServerProcess, start_server
from support.transports import TRANSPORT

QUICK = ("--engine", "synthetic", "-o", "tokens_per_second=0", "-o", "context_tokens=2048", "--max-output-tokens", "24")
INPUTS = 1000
MODEL = ("-o", "context_tokens=512", "--max-output-tokens", "4")


@contextmanager
def attacked(*flags: str) -> Iterator[tuple[ServerProcess, Attack]]:
    """Runs a server that must be idle at the end, must have logged no error, and must exit as usual."""
    with start_server(*flags) as server:
        with attack(server.target) as attacking:
            yield server, attacking
            attacking.assert_idle()
        assert not [line for line in server.read() if line.get("level") == "error" or "Traceback" in str(line)]
        assert server.stop() == 0


def test_no_input_breaks_the_server() -> None:
    with attacked(*QUICK) as (server, attacking):
        bombard(attacking, inputs(offered(server.target)), INPUTS, 0)
    assert attacking.statuses.total() == INPUTS
    assert attacking.statuses["OK"] > 200  # the inputs do not only test the parser


@pytest.mark.model
def test_no_constraint_breaks_the_model() -> None:
    with attacked(*MODEL) as (server, attacking):
        rpcs = offered(server.target)
        anything: st.SearchStrategy[Input] = constrained_inputs(rpcs) | inputs(rpcs)
        bombard(attacking, anything, 100, 0)
    assert attacking.statuses["OK"] > 10


def test_every_service_is_fuzzed(synthetic_server: ServerProcess) -> None:
    services = {rpc.path.split("/")[1] for rpc in offered(synthetic_server.target)}
    assert services >= {
        "doherty.v1.GenerationService",
        "doherty.v1.LatencyService",
        *(["grpc.channelz.v1.Channelz"] if TRANSPORT == "grpcio" else []),
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
