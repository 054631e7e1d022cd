"""The command `doherty keys` and the file that it writes."""

import json
import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from doherty_service.security import KeysFileError, changing_keys, read_keys
from support.command import run_doherty
from support.security import add_key


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def run_keys(file: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_doherty("keys", *arguments, DOHERTY_KEYS_FILE=str(file))


def test_a_key_is_printed_once_and_stored_as_its_hash(file: Path) -> None:
    added = run_keys(file, "add", "alice", "--adapter", "one", "--adapter", "two", "--max-concurrent", "4")
    assert (added.returncode, added.stdout.count("\n")) == (0, 1)
    prefix, identifier, secret = added.stdout.strip().split("_")
    assert (prefix, len(secret)) == ("dh", 64)
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (key,) = read_keys(file)
    assert (key.id, key.name, key.adapters, key.max_concurrent, key.per_minute) == (
        identifier,
        "alice",
        ("one", "two"),
        4,
        None,
    )
    listed = run_keys(file, "list").stdout
    assert all(word in listed for word in (identifier, "alice", "adapters one two", "4 at a time"))
    assert secret not in listed


def test_json_contains_everything_except_the_secret(file: Path) -> None:
    added = json.loads(run_keys(file, "add", "alice", "--per-minute", "600", "--json").stdout)
    prefix, identifier, secret = added.pop("key").split("_")
    assert (prefix, added["id"], added["name"], added["per_minute"]) == ("dh", identifier, "alice", 600)
    assert added["max_concurrent"] is None
    assert json.loads(run_keys(file, "list", "--json").stdout) == [added]
    changed = json.loads(run_keys(file, "set", "alice", "--weight", "2", "--json").stdout)
    assert changed == {**added, "weight": 2.0}
    revoked = run_keys(file, "revoke", "alice", "--json").stdout
    assert json.loads(revoked) == changed
    assert secret not in revoked
    assert json.loads(run_keys(file, "list", "--json").stdout) == []


def test_the_key_of_an_operator_is_marked(file: Path) -> None:
    assert run_keys(file, "add", "alice").returncode == 0
    assert "operator" not in file.read_text()  # so that a server of an older release can read it
    assert run_keys(file, "add", "ops", "--operator").returncode == 0
    assert [key.operator for key in read_keys(file)] == [False, True]
    assert [line.endswith("operator") for line in run_keys(file, "list").stdout.splitlines()] == [False, True]


def test_a_change_keeps_the_permissions_of_the_file(file: Path) -> None:
    add_key(file, "alice")
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 1, 2)
    before = file.stat()
    add_key(file, "bob")
    after = file.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


@pytest.mark.parametrize("by", ["name", "id"])
def test_a_key_is_revoked_by_its_name_or_id(file: Path, by: str) -> None:
    for name in ("alice", "bob"):
        add_key(file, name)
    revoked = run_keys(file, "revoke", str(getattr(read_keys(file)[0], by)))
    assert revoked.returncode == 0
    assert [key.name for key in read_keys(file)] == ["bob"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "alice"),
        ("add", "a b"),
        ("add", ""),
        ("add", "bob", "--per-minute", "0"),
        ("add",),
        ("revoke", "nobody"),
        ("no-such-command",),
    ],
)
def test_an_error_has_one_line(file: Path, arguments: tuple[str, ...]) -> None:
    add_key(file, "alice")
    before = file.read_bytes()
    failed = run_keys(file, *arguments)
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (2, "", 1)
    assert file.read_bytes() == before


@pytest.mark.parametrize("arguments", [("list",), ("revoke", "alice")])
def test_a_missing_file_is_named(file: Path, arguments: tuple[str, ...]) -> None:
    failed = run_keys(file, *arguments)
    assert failed.returncode == 1
    assert str(file) in failed.stderr
    assert not file.exists()


def test_a_command_without_a_file_is_refused() -> None:
    assert run_doherty("keys", "list").returncode == 2


@pytest.mark.parametrize("content", ["", "[]", '{"keys": [{"id": "tell-nobody"}]}', '{"more": 1, "keys": []}'])
def test_a_broken_file_is_not_overwritten_and_not_quoted(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(KeysFileError) as refused, changing_keys(file):
        pass
    assert "tell-nobody" not in str(refused.value)
    assert file.read_text() == content


def test_writers_wait_for_each_other(file: Path) -> None:
    names = [f"key-{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: add_key(file, name), names))
    assert sorted(key.name for key in read_keys(file)) == sorted(names)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_the_target_of_a_link_is_replaced(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    add_key(link, "alice")
    assert link.is_symlink()
    assert [key.name for key in read_keys(file)] == ["alice"]
