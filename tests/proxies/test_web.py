"""Callers without a gRPC library, through Envoy: curl with JSON, and connect-web, which pages use, in Node."""

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from foreign.clients import HERE as FOREIGN
from foreign.clients import Json
from proxies.conftest import Fleet
from proxies.running import PROGRAMS, Running
from support.certificates import Authority
from support.wire import connect

DESCRIPTORS = PROGRAMS[0].path.parent / "doherty.binpb"
GENERATION = "doherty.v1.GenerationService"
SHORT: Json = {"prompt": "a", "stopping": {"max_output_tokens": 4, "ignore_eos": True}}
ENDLESS: Json = {"prompt": "a", "stopping": {"max_output_tokens": 100_000, "ignore_eos": True}}
WRONG: Json = {"request_id": "web", "prompt": "a", "stopping": {"max_output_tokens": 0}}


@pytest.fixture(scope="module")
def envoy(proxies: list[Running]) -> Running:
    assert PROGRAMS[0].command  # skips the test if Envoy is not installed
    return proxies[0]


@pytest.fixture(scope="module")
def expected(fleet: Fleet) -> str:
    """Returns the answer to the short request."""
    with connect(fleet.addresses[0]) as caller:
        return caller.generate(**SHORT).text


def curl(envoy: Running, authority: Authority, method: str, *flags: str) -> list[str]:
    """Returns a curl command that calls a method."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    trusting = ("--silent", "--cacert", str(authority.roots_file))
    return ["curl", *trusting, *flags, f"https://{envoy.target}/{GENERATION}/{method}"]


def with_json(request: Json) -> tuple[str, ...]:
    """Returns the flags with which curl sends a request, prints the response without buffering, and then its status."""
    body = ("--header", "content-type: application/json", "--data", json.dumps(request))
    return *body, "--no-buffer", "--write-out", "\n%{http_code}"


def answers(command: list[str]) -> tuple[list[Json], int]:
    """Returns what curl prints: JSON objects, one per line, and the status."""
    *lines, status = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines if line], int(status)


def test_curl_generates(envoy: Running, authority: Authority, expected: str) -> None:
    [answer], status = answers(curl(envoy, authority, "Generate", *with_json(SHORT)))
    assert (status, answer["text"]) == (200, expected)
    assert answer["summary"]["finish_reason"] == "FINISH_REASON_LENGTH"


def test_curl_streams(envoy: Running, authority: Authority, expected: str) -> None:
    parts, status = answers(curl(envoy, authority, "StreamGenerate", *with_json(SHORT)))
    assert (status, "".join(part.get("delta", {}).get("text", "") for part in parts)) == (200, expected)
    assert len(parts) > 1
    assert "summary" in parts[-1]


def test_curl_sees_the_details_of_an_error(envoy: Running, authority: Authority) -> None:
    [error], status = answers(curl(envoy, authority, "Generate", *with_json(WRONG)))
    assert (status, error["code"]) == (400, 3)
    details = {detail["@type"].rpartition(".")[2]: detail for detail in error["details"]}
    assert details["BadRequest"]["field_violations"][0]["field"] == "stopping.max_output_tokens"
    assert details["ErrorInfo"]["domain"] == "doherty"
    assert details["RequestInfo"]["request_id"] == "web"


def test_a_slot_is_free_after_curl_is_killed(envoy: Running, authority: Authority, fleet: Fleet) -> None:
    command = curl(envoy, authority, "StreamGenerate", *with_json(ENDLESS))
    with connect(fleet.addresses[0]) as first, connect(fleet.addresses[1]) as two:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as calling:
            assert calling.stdout is not None
            assert "delta" in json.loads(calling.stdout.readline())  # before the answer is complete
            calling.terminate()
        for caller in (first, two):
            caller.wait_until(lambda now: not now.running)


def web(envoy: Running, authority: Authority, method: str, request: Json, **options: Any) -> Json:
    """Returns what a page in a browser would receive."""
    script = FOREIGN / "node" / "web.mjs"
    if not (script.parent / "node_modules" / "@connectrpc").is_dir():
        pytest.fail("install what Node needs with `make tests/foreign/node/node_modules/.installed`")
    asked: Json = {"url": f"https://{envoy.target}", "descriptors": str(DESCRIPTORS), "service": GENERATION}
    call = json.dumps({**asked, "method": method, "request": request, **options})
    environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(authority.roots_file)}
    done = subprocess.run(["node", script, call], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    result: Json = json.loads(done.stdout)
    return result


def test_a_page_generates(envoy: Running, authority: Authority, expected: str) -> None:
    result = web(envoy, authority, "Generate", SHORT)
    assert (result["code"], [answer["text"] for answer in result["messages"]]) == (0, [expected])
    assert result["trailers"]["server-timing"]


def test_a_page_streams(envoy: Running, authority: Authority, expected: str) -> None:
    result = web(envoy, authority, "StreamGenerate", SHORT)
    texts = [part.get("delta", {}).get("text", "") for part in result["messages"]]
    assert (result["code"], "".join(texts)) == (0, expected)
    assert len(texts) > 1
    assert "summary" in result["messages"][-1]


def test_a_page_sees_the_details_of_an_error(envoy: Running, authority: Authority) -> None:
    result = web(envoy, authority, "Generate", WRONG)
    assert result["code"] == 3
    details = {detail["type"]: detail for detail in result["details"]}
    assert details["google.rpc.BadRequest"]["fieldViolations"][0]["field"] == "stopping.max_output_tokens"
    assert details["google.rpc.RequestInfo"]["requestId"] == "web"


def test_a_slot_is_free_after_a_page_is_closed(envoy: Running, authority: Authority, fleet: Fleet) -> None:
    result = web(envoy, authority, "StreamGenerate", ENDLESS, cancelAfter=3)
    assert (result["code"], len(result["messages"])) == (1, 3)
    for address in fleet.addresses:
        with connect(address) as caller:
            caller.wait_until(lambda now: not now.running)


def test_pages_of_the_origin_in_the_file_may_call(envoy: Running, authority: Authority) -> None:
    def allowed(origin: str) -> bool:
        asked = ("--header", f"origin: {origin}", "--header", "access-control-request-method: POST")
        command = curl(envoy, authority, "Generate", "--include", "--request", "OPTIONS", *asked)
        reply = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return f"access-control-allow-origin: {origin}" in reply

    assert allowed("https://app.example.com")
    assert not allowed("https://elsewhere.example.com")
