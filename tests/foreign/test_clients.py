"""All calls, made by three clients in other languages, without our SDK, with the real model."""

import grpc
import pytest

from foreign.clients import BufCurl, ForeignClient, Grpcurl, Json, Node
from support.server import ServerProcess

pytestmark = pytest.mark.model

GENERATION = "doherty.v1.GenerationService"
LATENCY = "doherty.v1.LatencyService"
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]
PROMPT: Json = {"prompt": "Name three colors.", "sampling": {"temperature": 0}, "stopping": {"max_output_tokens": 40}}
# Far more than is generated before a test ends.
ENDLESS: Json = {"prompt": "Name three colors.", "stopping": {"max_output_tokens": 4000, "ignore_eos": True}}


@pytest.fixture(params=[Grpcurl(), BufCurl(), Node()], ids=["grpcurl", "buf", "node"])
def client(request: pytest.FixtureRequest) -> ForeignClient:
    """Each of the three clients in turn."""
    client: ForeignClient = request.param
    return client


@pytest.fixture(scope="module")
def target(model_server: ServerProcess) -> str:
    """The address of the server."""
    return model_server.target


def assert_complete(summary: Json) -> None:
    """Checks that a summary contains everything that every summary contains."""
    assert summary["finish_reason"] in {"FINISH_REASON_STOP", "FINISH_REASON_LENGTH"}
    assert summary["usage"]["output_tokens"] > 0
    assert summary["usage"]["prompt_tokens"] > 0
    assert {"time_to_first_token", "time_to_last_token", "total"} <= set(summary["timings"])


def test_the_services_are_listed(client: ForeignClient, target: str) -> None:
    assert {GENERATION, LATENCY, "grpc.health.v1.Health"} <= client.services(target)


def test_the_methods_are_described(client: ForeignClient, target: str) -> None:
    methods = {"Generate", "StreamGenerate", "MultiplexGenerate", "CountTokens", "GetModel"}
    assert client.methods(target, GENERATION) == methods
    assert client.methods(target, LATENCY) == {"GetLatency"}


def test_grpcurl_describes_a_message(target: str) -> None:
    described = Grpcurl.run(target, "describe", "doherty.v1.GenerateRequest")
    assert "optional string prompt = 3;" in described
    assert "repeated .doherty.v1.Message messages = 4;" in described


def test_many_requests_share_an_rpc(client: ForeignClient, target: str) -> None:
    fields = {"prompt": "Name three colors.", "stopping": {"max_output_tokens": 4}}
    wrong = {"prompt": "a", "raw_text": "b"}
    starts = [
        {"id": 1, "request": fields},
        {"id": 2, "request": fields, "whole": True},
        {"id": 3, "request": wrong},
    ]
    messages = client.call(target, f"{GENERATION}/MultiplexGenerate", {"starts": starts})
    parts: dict[str, list[Json]] = {"1": [], "2": [], "3": []}
    for message in messages:
        for part in message["parts"]:
            parts[str(part["id"])].append(part)
    assert len(parts["1"]) > len(parts["2"]) == 1
    for number in ("1", "2"):
        assert "".join(part["response"].get("delta", {}).get("text", "") for part in parts[number]).strip()
        assert parts[number][-1]["response"]["summary"]
    (failed,) = parts["3"]
    assert failed["status"]["code"] == INVALID_ARGUMENT


def test_generate_accepts_the_shortest_request(client: ForeignClient, target: str) -> None:
    [answer] = client.call(target, f"{GENERATION}/Generate", {"prompt": "Name three colors."})
    assert answer["text"].strip()
    assert answer["start"]["request_id"]
    assert_complete(answer["summary"])


def test_generate_accepts_messages(client: ForeignClient, target: str) -> None:
    request = {**PROMPT, "messages": [{"role": "ROLE_USER", "content": PROMPT["prompt"]}]}
    del request["prompt"]
    [answer] = client.call(target, f"{GENERATION}/Generate", request)
    [prompted] = client.call(target, f"{GENERATION}/Generate", PROMPT)
    assert answer["text"] == prompted["text"]
    assert_complete(answer["summary"])


def test_a_stream_is_the_answer_in_parts(client: ForeignClient, target: str) -> None:
    parts = client.call(target, f"{GENERATION}/StreamGenerate", PROMPT)
    [answer] = client.call(target, f"{GENERATION}/Generate", PROMPT)
    assert "".join((part.get("delta") or {}).get("text", "") for part in parts) == answer["text"] != ""
    assert [bool(part.get("start")) for part in parts] == [True, *[False] * (len(parts) - 1)]
    assert [bool(part.get("summary")) for part in parts] == [*[False] * (len(parts) - 1), True]
    assert len(parts) > 1
    assert_complete(parts[-1]["summary"])


def test_health_is_serving(client: ForeignClient, target: str) -> None:
    assert client.call(target, "grpc.health.v1.Health/Check", {"service": GENERATION}) == [{"status": "SERVING"}]


def test_latency_reports_the_answers(client: ForeignClient, target: str) -> None:
    client.call(target, f"{GENERATION}/Generate", PROMPT)
    [latency] = client.call(target, f"{LATENCY}/GetLatency", {})
    assert latency["answers"] >= 1
    assert latency["slots"] >= 1
    assert latency["time_to_first_token"]["p50"]
    assert 0 <= latency.get("first_token_share", 0) <= 1


def test_node_sees_the_details_of_an_error(target: str) -> None:
    wrong = {"request_id": "from-node", "prompt": "Hi.", "stopping": {"max_output_tokens": 0}}
    result = Node.exchange(target, f"{GENERATION}/Generate", wrong)
    assert result["code"] == 3
    details = {detail["type"]: detail for detail in result["details"]}
    [violation] = details["google.rpc.BadRequest"]["fieldViolations"]
    assert violation["field"] == "stopping.max_output_tokens"
    assert violation["description"]
    assert details["google.rpc.ErrorInfo"]["domain"] == "doherty"
    assert details["google.rpc.RequestInfo"]["requestId"] == "from-node"


@pytest.mark.parametrize(
    ("option", "code", "causes"),
    [
        ({"cancelAfter": 3}, 1, {"ABORT_CAUSE_CANCELLED"}),
        # The client's own timer may expire first, and then it cancels.
        ({"deadlineMs": 1500}, 4, {"ABORT_CAUSE_DEADLINE", "ABORT_CAUSE_CANCELLED"}),
    ],
    ids=["cancel", "deadline"],
)
def test_the_server_notices_that_node_gives_up(
    target: str, option: dict[str, int], code: int, causes: set[str]
) -> None:
    before = aborts(target, causes)
    result = Node.exchange(target, f"{GENERATION}/StreamGenerate", ENDLESS, **option)
    assert result["code"] == code
    assert not any(message.get("summary") for message in result["messages"])
    # If the server never notices, pytest-timeout ends the test.
    while aborts(target, causes) == before:
        pass
    while latency_of(target).get("running", 0):
        pass
    assert aborts(target, causes) == before + 1


def latency_of(target: str) -> Json:
    """Returns the reply of GetLatency."""
    [latency] = Grpcurl().call(target, f"{LATENCY}/GetLatency", {})
    return latency


def aborts(target: str, causes: set[str]) -> int:
    """Returns the number of requests that ended for one of these causes, as counted by the server."""
    return sum(int(count["count"]) for count in latency_of(target).get("aborts", []) if count["cause"] in causes)
