"""The folder for the embedded engine's socket."""

import socket
import tempfile
from pathlib import Path

import pytest

from doherty_engine import EngineSetupError
from doherty_engine.llamacpp import _socket_folder
from doherty_engine.llamacpp._socket_folder import SOCKET, make_socket_folder, remove_socket_folder


@pytest.fixture
def tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_only_folders_of_killed_servers_are_removed(tmpdir: Path) -> None:
    left, used, fresh, foreign = (make_socket_folder() for _ in range(4))
    (foreign / "notes").write_text("mine")
    (tmpdir / "doherty-results").mkdir()
    for folder in (left, foreign):
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(folder / SOCKET))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(used / SOCKET))
        listener.listen()
        made = make_socket_folder()
        assert set(tmpdir.iterdir()) == {used, fresh, foreign, made, tmpdir / "doherty-results"}
    assert (foreign / "notes").read_text() == "mine"
    remove_socket_folder(made)
    assert not made.exists()


@pytest.mark.parametrize("wrong", ["too long", "absent"])
def test_another_folder_is_used_if_tmpdir_does_not_work(
    tmpdir: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    parent = tmpdir / ("x" * 110 if wrong == "too long" else "absent")
    if wrong == "too long":
        parent.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(parent))
    folder = make_socket_folder()
    assert folder.parent != parent
    remove_socket_folder(folder)
    monkeypatch.setattr(_socket_folder, "_parents", lambda: iter([parent]))
    with pytest.raises(EngineSetupError, match="set TMPDIR to a writable folder with a short path") as raised:
        make_socket_folder()
    assert str(parent) in str(raised.value)
