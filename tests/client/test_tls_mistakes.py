"""Mistakes in the encryption of a connection are reported by both clients at their first attempt."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest
import trustme

from doherty import TLSConfig, UnavailableError
from support.server import ServerProcess
from support.serving import answer, serve
from support.twins import Kind, Twin, open_twin

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def encrypted(request: pytest.FixtureRequest, authority: trustme.CA) -> Iterator[str]:
    """Returns the target of a server with a certificate."""
    leaf: trustme.LeafCert = request.param(authority)
    pair = (leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes())
    with serve(lambda _, __: iter(answer()), credentials=grpc.ssl_server_credentials([pair])) as serving:
        yield serving.target


def _good(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("127.0.0.1")


def _expired(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("127.0.0.1", not_before=NOW - timedelta(9), not_after=NOW - timedelta(1))


def _of_the_future(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("127.0.0.1", not_before=NOW + timedelta(1), not_after=NOW + timedelta(9))


def _of_another_name(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("example.org")


async def _mistake(twin: Twin) -> tuple[str | None, str]:
    """Returns the reason and the message with which every call fails at its first attempt."""
    reports: set[tuple[str | None, str]] = set()
    for call in (twin.generate("Hi"), twin.stream("Hi").result(), twin("model"), twin("health"), twin("wait_ready")):
        with pytest.raises(UnavailableError) as raised:
            await call
        reports.add((raised.value.reason, raised.value.message))
    [report] = reports
    assert "attempts" not in report[1]
    return report


@pytest.mark.parametrize("encrypted", [_good], indirect=True)
async def test_plaintext_to_a_server_with_tls_is_reported(kind: Kind, encrypted: str) -> None:
    async with open_twin(kind, encrypted) as twin:
        reason, message = await _mistake(twin)
    assert reason == "TLS_REQUIRED"
    assert message.startswith(f"{encrypted} speaks TLS, and this client does not: connect with tls=True")


async def test_tls_to_a_server_without_tls_is_reported(kind: Kind, synthetic_server: ServerProcess) -> None:
    async with open_twin(kind, synthetic_server.target, tls=True) as twin:
        reason, message = await _mistake(twin)
    assert reason == "TLS_NOT_SPOKEN"
    assert message.startswith(f"{synthetic_server.target} does not speak TLS, and this client does")


@pytest.mark.parametrize(
    ("encrypted", "expected"),
    [
        (_expired, "has expired"),
        (_of_the_future, "is not valid yet"),
        (_of_another_name, "is for another name"),
        (lambda _: trustme.CA().issue_cert("127.0.0.1"), "is not trusted"),
    ],
    indirect=["encrypted"],
)
async def test_an_invalid_certificate_is_reported(
    kind: Kind, encrypted: str, authority: trustme.CA, expected: str
) -> None:
    async with open_twin(kind, encrypted, tls=TLSConfig(ca=authority.cert_pem.bytes())) as twin:
        reason, message = await _mistake(twin)
    assert reason == "CERTIFICATE_NOT_TRUSTED"
    assert message.startswith(f"the certificate of {encrypted} {expected}")


@pytest.mark.parametrize("encrypted", [_expired], indirect=True)
async def test_a_mistake_at_one_server_does_not_affect_others(
    kind: Kind, encrypted: str, authority: trustme.CA
) -> None:
    leaf = _good(authority)
    pair = (leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes())
    tls = TLSConfig(ca=authority.cert_pem.bytes())
    with serve(lambda _, __: iter(answer()), credentials=grpc.ssl_server_credentials([pair])) as serving:
        async with open_twin(kind, [encrypted, serving.target], tls=tls) as twin:
            await twin("wait_ready")
            for _ in range(4):
                assert str(await twin.generate("Hi")) == "fine"


async def test_a_missing_client_certificate_is_reported(kind: Kind, authority: trustme.CA) -> None:
    leaf = _good(authority)
    pair = (leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes())
    roots = authority.cert_pem.bytes()
    credentials = grpc.ssl_server_credentials([pair], roots, require_client_auth=True)
    with serve(lambda _, __: iter(answer()), credentials=credentials) as serving:
        async with open_twin(kind, serving.target, tls=TLSConfig(ca=roots)) as twin:
            reason, message = await _mistake(twin)
        assert reason == "CERTIFICATE_REQUIRED"
        assert message == (
            f"{serving.target} requires a certificate from its callers, and this client has none: "
            "show one with TLSConfig(cert=..., key=...) or --tls-cert and --tls-key"
        )
        stranger = trustme.CA().issue_cert("client")
        chain, key = stranger.cert_chain_pems[0].bytes(), stranger.private_key_pem.bytes()
        async with open_twin(kind, serving.target, tls=TLSConfig(ca=roots, cert=chain, key=key)) as twin:
            with pytest.raises(UnavailableError, match="may not have accepted this client's") as raised:
                await twin.generate("Hi")
        assert raised.value.reason is None
