"""The headers and the first message of an RPC on both transports, according to gRPC's PROTOCOL-HTTP2."""

import base64

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from doherty.v1 import generation_service_pb2 as wire
from support.raw_rpc import CHECK, GENERATE, GET_MODEL, STREAM, Reply, ask, framed, headers
from support.server import ServerProcess
from support.wire import request

OK, INTERNAL, UNIMPLEMENTED = grpc.StatusCode.OK, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNIMPLEMENTED
INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED, TOO_LATE = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED
ENDLESS = framed(request(prompt="a", stopping={"max_output_tokens": 19_000, "ignore_eos": True}).SerializeToString())
"""A request whose answer takes ten seconds."""
OPTIONAL = {"grpc-accept-encoding", "grpc-message"}
"""Fields that may be missing, including the second one if it is empty."""
ODD_NAME = "é%\n水\x7f+ %41"
UNSERVED = framed(request(prompt="a", model=ODD_NAME).SerializeToString())


def is_whole(reply: Reply) -> bool:
    """Whether the reply is an answer with the status OK, in the form that gRPC requires."""
    return (reply.http, reply.code, reply.blocks, reply.fields["content-type"]) == ("200", OK, 2, "application/grpc")


@pytest.mark.parametrize("timeout", ["10S", "00000010S", "1H", "99999999H", "99999999S", "10000m", "99999999u", "1M"])
def test_a_deadline_has_eight_digits_and_a_unit(server: ServerProcess, timeout: str) -> None:
    assert is_whole(ask(server.target, headers(GET_MODEL, ("grpc-timeout", timeout))))


@pytest.mark.parametrize("timeout", ["1n", "99999999n", "1000u", "100m"])
def test_a_deadline_ends_an_rpc(server: ServerProcess, timeout: str) -> None:
    reply = ask(server.target, headers(STREAM, ("grpc-timeout", timeout)), ENDLESS)
    assert reply.code is TOO_LATE or reply.error is not None


def test_a_deadline_ends_an_rpc_whose_message_does_not_arrive(server: ServerProcess) -> None:
    reply = ask(server.target, headers(GENERATE, ("grpc-timeout", "50m")), b"", end=False)
    assert reply.code is TOO_LATE


@pytest.mark.parametrize("timeout", ["", "S", "5", "-5S", "5x", "1.5S", "soon", "5SS", "0x5S", "5s"])
def test_a_deadline_of_another_form_is_refused(server: ServerProcess, timeout: str) -> None:
    reply = ask(server.target, headers(GET_MODEL, ("grpc-timeout", timeout)))
    assert reply.is_refused or reply.code in {INTERNAL, INVALID}
    assert reply.is_refused or "grpc-timeout" in reply.message


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS"])
def test_methods_other_than_post_are_refused(server: ServerProcess, method: str) -> None:
    reply = ask(server.target, headers(method=method))
    assert reply.is_refused or (reply.code, reply.message) == (INTERNAL, "Error parsing ':method' metadata")


def test_te_is_required(server: ServerProcess) -> None:
    assert ask(server.target, headers(te=None)).is_refused


@pytest.mark.parametrize(
    ("block", "body", "codes"),
    [
        (headers(GET_MODEL, ("grpc-timeout", "5 S")), framed(b""), {INTERNAL, INVALID}),
        (headers(GET_MODEL, ("grpc-timeout", "123456789S")), framed(b""), {INTERNAL, INVALID}),
        (headers("/doherty.v1.GenerationService/\udcff"), framed(b""), {None, UNIMPLEMENTED}),
        (headers(CHECK), framed(b"a", flag=1), {INTERNAL, INVALID, UNIMPLEMENTED}),
        (headers(CHECK), framed(b"", flag=2), {INTERNAL, INVALID, UNIMPLEMENTED}),
        (headers(CHECK), framed(b"") + bytes(2), {INTERNAL, INVALID}),
        (headers(CHECK, ("grpc-encoding", "none-such")), framed(b"a", flag=1), {UNIMPLEMENTED}),
        (headers(GET_MODEL, ("x-a-bin", "AAE=,AAE")), framed(b""), {OK}),
        (headers(GET_MODEL, ("grpc-encoding", "identity")), framed(b""), {OK}),
    ],
    ids=["blank", "9 digits", "path", "compressed", "flag", "remainder", "encoding", "two values", "identity"],
)
def test_deviations_of_grpcs_core_from_the_specification(
    http2_server: ServerProcess, block: bytes, body: bytes, codes: set[grpc.StatusCode | None]
) -> None:
    """gRPC's core accepts or refuses these in another way than PROTOCOL-HTTP2 requires."""
    reply = ask(http2_server.target, block, body)
    assert reply.code in codes
    assert reply.code is not None or reply.is_refused


def test_a_refusal_of_compression_names_the_accepted_encodings(http2_server: ServerProcess) -> None:
    """gRPC's core does not."""
    reply = ask(http2_server.target, headers(CHECK, ("grpc-encoding", "gzip")), framed(b"a", flag=1))
    assert reply.fields["grpc-accept-encoding"] == "identity"


@pytest.mark.parametrize("kind", ["application/json", "text/html", "", "application/grp", None])
def test_another_type_of_content_is_refused(http2_server: ServerProcess, kind: str | None) -> None:
    """gRPC's core accepts any content type."""
    reply = ask(http2_server.target, headers(content_type=kind))
    assert reply.http == "415" or reply.error is not None


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto"])
def test_content_types_of_grpc_are_accepted(server: ServerProcess, kind: str) -> None:
    assert ask(server.target, headers(content_type=kind)).code is OK


@pytest.mark.parametrize(
    "path", ["/doherty.v1.GenerationService/None", "/none/Generate", "/", "//", "/a", "/a/b/c", "/" + "a" * 3000, "/*"]
)
def test_an_unknown_method_is_unimplemented(server: ServerProcess, path: str) -> None:
    reply = ask(server.target, headers(path))
    assert (reply.http, reply.code) == ("200", UNIMPLEMENTED)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compression_is_refused(server: ServerProcess, encoding: str) -> None:
    reply = ask(server.target, headers(CHECK, ("grpc-encoding", encoding)), framed(b"a", flag=1))
    assert reply.code is UNIMPLEMENTED


@pytest.mark.parametrize("length", [(17 << 20) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
@pytest.mark.parametrize("path", [CHECK, GENERATE, STREAM])
def test_a_message_above_the_limit_is_refused_before_it_arrives(server: ServerProcess, path: str, length: int) -> None:
    reply = ask(server.target, headers(path), framed(b"abc", length=length), end=False)
    assert reply.code is EXHAUSTED


@pytest.mark.parametrize("body", [b"", b"\0", framed(b"a", length=5)])
def test_half_a_message_is_refused(server: ServerProcess, body: bytes) -> None:
    reply = ask(server.target, headers(CHECK), body)
    assert reply.code not in {OK, grpc.StatusCode.UNKNOWN}
    assert reply.code is not None or reply.is_refused


def test_a_second_message_of_a_unary_rpc_is_refused(server: ServerProcess) -> None:
    reply = ask(server.target, headers(CHECK), framed(b"") * 2)
    assert reply.code is not grpc.StatusCode.UNKNOWN


@pytest.mark.parametrize("fields", [[("x-a", "a" * 20_000)], [("x-a", "a" * 100)] * 300, [("a", "")] * 9_000])
def test_metadata_above_the_limit_is_refused(server: ServerProcess, fields: list[tuple[str, str]]) -> None:
    reply = ask(server.target, headers(GET_MODEL, *fields))
    assert reply.code is EXHAUSTED or reply.is_refused or not reply.fields  # the connection may be closed


def test_metadata_of_eight_kilobytes_is_accepted(server: ServerProcess) -> None:
    assert is_whole(ask(server.target, headers(GET_MODEL, *[("x-a", "a" * 100)] * 50)))


@pytest.mark.parametrize("value", ["", "AAE=", "AAE", "AA", "////", "+/+/"])
def test_binary_metadata_is_base64_with_or_without_padding(server: ServerProcess, value: str) -> None:
    assert is_whole(ask(server.target, headers(GET_MODEL, ("x-a-bin", value))))


@pytest.mark.parametrize("value", ["!", "A", "AA=A", "A\udcff"])
def test_binary_metadata_that_is_not_base64_is_refused(server: ServerProcess, value: str) -> None:
    reply = ask(server.target, headers(GET_MODEL, ("x-a-bin", value)))
    assert reply.is_refused or reply.code in {INTERNAL, INVALID}
    assert reply.is_refused or "x-a-bin" in reply.message


def test_a_status_that_is_known_immediately_is_one_header_block(server: ServerProcess) -> None:
    reply = ask(server.target, headers(GENERATE), UNSERVED)
    assert (reply.http, reply.code, reply.blocks, reply.body) == ("200", grpc.StatusCode.NOT_FOUND, 1, b"")
    assert reply.fields["content-type"].startswith("application/grpc")


def test_the_message_of_a_status_is_percent_encoded(server: ServerProcess) -> None:
    reply = ask(server.target, headers(GENERATE), UNSERVED)
    assert all(" " <= character <= "~" for character in reply.fields["grpc-message"])
    encoded = reply.fields["grpc-status-details-bin"]
    assert "=" not in encoded
    status = status_pb2.Status.FromString(base64.b64decode(encoded + "=" * (-len(encoded) % 4)))
    assert status.message == reply.message
    assert "é%" in reply.message
    assert any(detail.Unpack(error_details_pb2.ErrorInfo()) for detail in status.details)


def test_both_transports_send_the_same_headers(grpcio_server: ServerProcess, http2_server: ServerProcess) -> None:
    bodies = [UNSERVED, framed(b"\xff"), framed(request(prompt="a").SerializeToString())]
    for body in bodies:
        expected, other = (ask(server.target, headers(GENERATE), body) for server in (grpcio_server, http2_server))
        assert (expected.code, expected.message, expected.blocks) == (other.code, other.message, other.blocks)
        assert expected.fields.keys() - OPTIONAL == other.fields.keys() - OPTIONAL
        if expected.code is OK:
            answers = [wire.GenerateResponse.FromString(reply.body[5:]) for reply in (expected, other)]
            assert answers[0].text == answers[1].text
