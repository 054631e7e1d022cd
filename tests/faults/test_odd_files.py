"""Unusual files in place of keys, certificates and settings."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from doherty_service.process import UnfitFileError, read_file
from doherty_service.security import CertificateFiles, Certificates
from support.certificates import Authority
from support.command import run_doherty
from support.metrics import LISTEN, scrape
from support.security import add_key, connect_with
from support.server import start_server

SYNTHETIC = ("--engine", "synthetic", "--listen", "127.0.0.1:0")
DAY = timedelta(days=1)


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def make_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


ODD: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "an endless device": link_to("/dev/zero"),
    "too large": make_large,
}


@pytest.mark.parametrize("kind", ODD)
def test_an_unusual_file_is_not_read(tmp_path: Path, kind: str) -> None:
    ODD[kind](tmp_path / "odd")
    with pytest.raises(UnfitFileError, match="MiB" if kind == "too large" else "regular file"):
        read_file(tmp_path / "odd", 1 << 20)


@pytest.mark.parametrize("setting", ["keys_file", "tls_cert", "config"])
def test_an_unusual_file_at_the_start_is_reported_in_one_sentence(tmp_path: Path, setting: str) -> None:
    os.mkfifo(tmp_path / "odd")
    authority = Authority(tmp_path)
    authority.renew("server")
    variables = {f"DOHERTY_{setting.upper()}": str(tmp_path / "odd")}
    if setting == "tls_cert":
        variables["DOHERTY_TLS_KEY"] = str(authority.key)
    ended = run_doherty("serve", *SYNTHETIC, **variables)
    assert ended.returncode == 2
    (sentence,) = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert "odd is not a regular file" in sentence


def test_a_running_server_keeps_its_previous_file(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, "kept")
    with start_server(*SYNTHETIC, "--keys-file", str(keys)) as server, connect_with(server.target, token) as caller:
        for kind, make in ODD.items():
            keys.rename(tmp_path / f"before {kind}")
            make(keys)
            assert caller.generate(prompt="Why?", stopping={"max_output_tokens": 1}).text
        server.stop()
        server.log += server.read()
    assert sum(line["event"] == "keys_not_read" for line in server.log) == len(ODD)


@pytest.mark.parametrize(
    ("begins", "ends", "event"),
    [
        (-DAY, 15 * DAY, None),
        (-DAY, 13 * DAY, "certificate_expires_soon"),
        (-2 * DAY, -DAY, "certificate_not_valid"),
        (DAY, 30 * DAY, "certificate_not_valid"),
    ],
)
def test_an_expiring_certificate_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, begins: timedelta, ends: timedelta, event: str | None
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    authority = Authority(tmp_path)
    authority.renew("server", begins=now + begins, ends=now + ends)
    certificates = Certificates(CertificateFiles(authority.chain, authority.key))
    assert certificates.expires == (now + ends).timestamp()
    assert [record.getMessage() for record in caplog.records] == ([] if event is None else [event])


def test_the_metrics_contain_the_expiry_of_the_certificate(tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    authority = Authority(tmp_path)
    authority.renew("server", begins=now - 2 * DAY, ends=now - DAY)
    with start_server(*SYNTHETIC, *LISTEN, *authority.flags) as server:
        event = server.wait_for("certificate_not_valid")
        assert (event["path"], event["expires"]) == (str(authority.chain), (now - DAY).isoformat())
        assert scrape(server).value("doherty_certificate_expiry_timestamp_seconds") == (now - DAY).timestamp()


def test_a_byte_order_mark_in_a_config_file_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "doherty.toml"
    for data, word in ((b"\xef\xbb\xbfengine = 'synthetic'\n", "byte-order mark"), (b"\xff\xfe=\0", "not UTF-8")):
        file.write_bytes(data)
        ended = run_doherty("serve", "--config", str(file), "--print-config")
        assert (ended.returncode, ended.stdout) == (2, "")
        assert word in ended.stderr
        assert str(file) in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
