"""The flags that say how a command connects to its server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.certificates import Authority
from support.command import run_doherty
from support.security import add_key
from support.server import ServerProcess, start_server

SYNTHETIC = ("--engine", "synthetic", "-o", "answer_tokens=3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("secrets")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    authority = Authority(folder)
    authority.renew("first")
    return authority


@pytest.fixture(scope="module")
def key_file(folder: Path) -> Path:
    """Returns a file with the key of a caller, for `--api-key-file`."""
    path = folder / "alice.key"
    path.write_text(add_key(folder / "keys.json", "alice") + "\n")
    return path


@pytest.fixture(scope="module")
def guarded(folder: Path, authority: Authority, key_file: Path) -> Iterator[ServerProcess]:
    """Runs a server with TLS and keys."""
    assert key_file.exists()
    with start_server(*SYNTHETIC, *authority.flags, "--keys-file", str(folder / "keys.json")) as server:
        yield server


@pytest.mark.parametrize("command", [("generate", "Hi"), ("bench", "--requests", "2"), ("bench",), ("model",)])
def test_a_key_and_the_certificates_come_from_files(
    guarded: ServerProcess, authority: Authority, key_file: Path, command: tuple[str, ...]
) -> None:
    flags = ("--target", guarded.target, "--tls-ca", str(authority.roots_file), "--api-key-file", str(key_file))
    finished = run_doherty(*command, *flags)
    assert (finished.returncode, finished.stderr) == (0, "")


def test_a_key_and_the_certificates_come_from_the_environment(
    guarded: ServerProcess, authority: Authority, key_file: Path
) -> None:
    variables = {"DOHERTY_API_KEY": key_file.read_text().strip(), "DOHERTY_TLS_CA": str(authority.roots_file)}
    assert run_doherty("health", "--target", guarded.target, **variables).stdout == "SERVING\n"
    finished = run_doherty("generate", "Hi", "--target", guarded.target, **variables)
    assert (finished.returncode, finished.stderr) == (0, "")


def test_the_exit_code_is_1_without_a_key(guarded: ServerProcess, authority: Authority) -> None:
    finished = run_doherty("model", "--target", guarded.target, "--tls-ca", str(authority.roots_file))
    assert finished.returncode == 1
    assert "UNAUTHENTICATED" in finished.stderr
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize("flags", [(), ("--tls",), ("--no-tls",)])
def test_the_server_is_not_reached_without_the_right_certificates(
    guarded: ServerProcess, flags: tuple[str, ...]
) -> None:
    finished = run_doherty("model", "--target", guarded.target, "--timeout", "5", *flags)
    assert finished.returncode == 3
    assert guarded.target in finished.stderr


def test_a_server_that_requires_a_certificate_gets_it(folder: Path, authority: Authority) -> None:
    chain, key = folder / "client.pem", folder / "client.key"
    for path, data in zip((chain, key), authority.issue(), strict=True):
        path.write_bytes(data)
    mutual = ("--tls-client-ca", str(authority.roots_file))
    with start_server(*SYNTHETIC, *authority.flags, *mutual) as server:
        trusting = ("--target", server.target, "--tls-ca", str(authority.roots_file), "--timeout", "5")
        shown = run_doherty("model", *trusting, "--tls-cert", str(chain), "--tls-key", str(key))
        hidden = run_doherty("model", *trusting)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert hidden.returncode == 3


def test_several_targets(synthetic_server: ServerProcess) -> None:
    finished = run_doherty("generate", "Hi", "--target", f"127.0.0.1:1,{synthetic_server.target}")
    assert (finished.returncode, finished.stderr) == (0, "")


def test_a_key_is_not_sent_to_another_machine_unencrypted(key_file: Path) -> None:
    target = ("--target", "192.0.2.1:50051", "--api-key-file", str(key_file))
    refused = run_doherty("model", *target)
    assert refused.returncode == 2
    assert "unencrypted" in refused.stderr
    assert key_file.read_text().strip() not in refused.stderr
    assert run_doherty("model", *target, "--insecure", "--timeout", "0.2").returncode == 3


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (("--api-key-file", "/no/such/file"), "/no/such/file"),
        (("--api-key-file", "/dev/null"), "There is no API key in /dev/null"),
        (("--tls-ca", "/no/such/file"), "/no/such/file"),
        (("--tls-cert", "/dev/null"), "--tls-cert and --tls-key go together"),
        (("--no-tls", "--tls-cert", "/dev/null", "--tls-key", "/dev/null"), "--no-tls"),
        (("--target", "localhost"), "HOST:PORT"),
    ],
)
def test_the_exit_code_is_2_if_the_flags_describe_no_connection(flags: tuple[str, ...], part: str) -> None:
    finished = run_doherty("model", *flags)
    assert finished.returncode == 2
    assert part in finished.stderr
    assert finished.stderr.count("\n") == 1
