"""TLS and keys, with both clients."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme

from doherty import AsyncClient, Client, TLSConfig, UnavailableError
from support.serving import Serving, answer, serve
from support.twins import Kind, open_twin

KEY = "dh_me_secret"


@dataclass(frozen=True)
class Pki:
    """The files of certificates."""

    ca: Path
    cert: Path
    key: Path


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pki(authority: trustme.CA, tmp_path: Path) -> Pki:
    issued = authority.issue_cert("me")
    files = Pki(tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem")
    authority.cert_pem.write_to_path(files.ca)
    issued.cert_chain_pems[0].write_to_path(files.cert)
    issued.private_key_pem.write_to_path(files.key)
    return files


@pytest.fixture(params=[False, True], ids=["tls", "mtls"])
def encrypted(authority: trustme.CA, request: pytest.FixtureRequest) -> Iterator[Serving]:
    issued = authority.issue_cert("127.0.0.1")
    pairs = [(issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())]
    mutual: bool = request.param
    trusted = authority.cert_pem.bytes() if mutual else None
    credentials = grpc.ssl_server_credentials(pairs, trusted, require_client_auth=mutual)
    with serve(lambda _, __: iter(answer()), credentials=credentials) as serving:
        yield serving


async def test_a_connection_can_be_encrypted(kind: Kind, encrypted: Serving, pki: Pki) -> None:
    tls = TLSConfig(ca=pki.ca, cert=str(pki.cert), key=pki.key.read_bytes())
    async with open_twin(kind, encrypted.target, tls=tls, api_key=KEY) as twin:
        assert str(await twin.generate("Hi")) == "fine"
        assert str(await twin.stream("Hi").result()) == "fine"
    assert [metadata["authorization"] for metadata in encrypted.metadata] == [f"Bearer {KEY}"] * 2


async def test_certificates_can_come_from_the_environment(
    kind: Kind, encrypted: Serving, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOHERTY_TLS_CA", str(pki.ca))
    async with open_twin(kind, encrypted.target, retry=None) as twin:
        try:
            assert str(await twin.generate("Hi")) == "fine"
        except UnavailableError:
            assert encrypted.metadata == []  # mTLS without a certificate of the client
    async with open_twin(kind, encrypted.target, retry=None, tls=False) as plain:
        with pytest.raises(UnavailableError):
            await plain.generate("Hi")


async def test_a_server_with_an_untrusted_certificate_gets_no_request(kind: Kind, encrypted: Serving) -> None:
    async with open_twin(kind, encrypted.target, tls=True, api_key=KEY, retry=None) as twin:
        with pytest.raises(UnavailableError):
            await twin.generate("Hi")
    assert encrypted.metadata == []


async def test_a_key_is_sent_with_every_call(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOHERTY_API_KEY", KEY)
    with serve(lambda _, __: iter(answer())) as serving:
        async with open_twin(kind, serving.target) as twin:
            await twin.generate("Hi")
            await twin.stream("Hi").result()
        async with open_twin(kind, serving.target, api_key="") as nobody:
            await nobody.generate("Hi")
    assert [metadata.get("authorization") for metadata in serving.metadata] == [f"Bearer {KEY}"] * 2 + [None]


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize(
    "target",
    [
        "gpu:50051",
        "10.0.0.1:50051",
        "127.example.org:1",
        "dns:///gpu:50051",
        "ipv4:127.0.0.1:1,10.0.0.1:1",
        "[::2]:1",
        "[::ffff:10.0.0.1]:1",
        "localhost.example.org:1",
        "notlocalhost:1",
        "127.\u0663:1",
    ],
)
def test_a_key_is_not_sent_to_another_machine_unencrypted(client: type[Client | AsyncClient], target: str) -> None:
    with pytest.raises(ValueError, match="unencrypted") as raised:
        client(["localhost:1", target], api_key=KEY)
    assert KEY not in str(raised.value)
    client([target], api_key=KEY, insecure=True)
    client([target], api_key=KEY, tls=True)
    client([target])


@pytest.mark.parametrize(
    "target",
    [
        "localhost:1",
        "LOCALHOST:1",
        "localhost.:1",
        "api.localhost:1",
        "dns:///Api.LocalHost.:1",
        "127.0.0.1:1",
        "127.1.2.3:1",
        "[::1]:1",
        "[0:0:0:0:0:0:0:1]:1",
        "[::1%lo]:1",
        "[::ffff:127.0.0.1]:1",
        "unix:/tmp/x",
        "unix-abstract:x",
        "dns:///localhost:1",
        "ipv6:[::1]:1",
        "ipv6:%5B::1%5D:1",
    ],
)
def test_a_key_may_be_sent_within_the_machine_unencrypted(target: str) -> None:
    with Client(target, api_key=KEY):
        pass


@pytest.mark.parametrize("key", [f"{KEY}\n", "with space", "schlüssel"])
def test_an_invalid_key_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="characters") as raised:
        Client("localhost:1", api_key=key)
    assert key not in str(raised.value)


def test_the_repr_of_a_client_does_not_contain_its_key() -> None:
    with Client("localhost:1", api_key=KEY) as client:
        assert repr(client) == "Client('localhost:1')"
        assert KEY not in repr(vars(client))


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ValueError, match="together"):
        TLSConfig(cert=b"")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Client("localhost:1", tls=TLSConfig(ca="/nowhere"))
    with pytest.raises(TypeError, match="tls="):
        Client("localhost:1", tls="yes")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def test_a_unix_socket_counts_as_this_machine(kind: Kind, tmp_path: Path) -> None:
    target = f"unix:{tmp_path / 's'}"
    with serve(lambda _, __: iter(answer()), address=target) as serving:
        async with open_twin(kind, target, api_key=KEY) as twin:
            assert str(await twin.generate("Hi")) == "fine"
    assert len(serving.requests) == 1
