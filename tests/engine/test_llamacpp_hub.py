"""The embedded engine loads models from the hub, or from the hub's cache if the hub is unreachable."""

import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from doherty_engine import EngineSetupError, _hub
from doherty_engine.llamacpp._choice import choose_file
from doherty_engine.llamacpp._model_file import find_model
from doherty_engine.models import fetch_weights
from doherty_engine.text import find_model_folder
from support.gguf import CHATML, write_tiny_folder, write_tiny_model, write_tiny_parts
from support.hub import COMMIT, MODEL, Hub, running_hub
from support.server import start_server
from support.wire import connect

FILES = (
    "README.md",
    "m-IQ4_0.gguf",
    "m-Q4_0.gguf",
    "m-Q4_K_M.gguf",
    "m-Q8_0.gguf",
    "mmproj-Q4_K_M.gguf",
    "big/m-BF16-00001-of-00002.gguf",
    "big/m-BF16-00002-of-00002.gguf",
)
FORMS = {
    "": "m-Q4_K_M.gguf",
    ":q8_0": "m-Q8_0.gguf",
    ":Q4_0": "m-Q4_0.gguf",
    ":BF16": "big/m-BF16-00001-of-00002.gguf",
    "/m-IQ4_0.gguf": "m-IQ4_0.gguf",
    "/big/m-BF16-00001-of-00002.gguf": "big/m-BF16-00001-of-00002.gguf",
}
"""Suffixes of a repository's name, and the files that they mean."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    model = tmp_path / "model"
    for name in FILES:
        path = model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    with running_hub(model) as running:
        running.take_over(monkeypatch, tmp_path / "home")
        yield running


@pytest.fixture
def silent() -> Iterator[str]:
    """Returns the address of a server that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def go_offline(hub: Hub, patch: pytest.MonkeyPatch, how: str) -> None:
    """Makes the hub unreachable; `how` may be another address for it."""
    if how == "switched off":
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    elif how == "it fails":
        hub.fails = True
    elif how == "no name":
        patch.setattr("huggingface_hub.constants.ENDPOINT", "http://hub.invalid")
        patch.setattr(socket, "getaddrinfo", no_name)
    else:
        patch.setattr("huggingface_hub.constants.ENDPOINT", how)


def no_name(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


CLOSED = "http://127.0.0.1:1"
"""An address at which no server listens."""
OFFLINE = ("switched off", "it fails", "no name", CLOSED)


@pytest.mark.parametrize(("form", "file"), FORMS.items())
def test_a_model_can_be_loaded_from_the_hub(hub: Hub, form: str, file: str) -> None:
    model = find_model(f"{MODEL}{form}", "v1")
    assert (model.model, model.revision) == (f"{MODEL}{form}", COMMIT)
    assert model.path.parts[-len(Path(file).parts) - 1 :] == (COMMIT, *Path(file).parts)
    assert model.path.read_text() == file
    # All parts of the model, and no other file.
    fetched = {name for method, name, _ in hub.requested_files if method == "GET"}
    parts = {"m-BF16-00001-of-00002.gguf", "m-BF16-00002-of-00002.gguf"}
    assert fetched == (parts if "BF16" in file else {Path(file).name})


@pytest.mark.parametrize("how", OFFLINE)
@pytest.mark.parametrize("revision", ["", "v1", COMMIT])
def test_downloads_are_found_without_the_hub(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str, revision: str
) -> None:
    online = {form: find_model(f"{MODEL}{form}", revision) for form in FORMS}
    requests = hub.requests
    go_offline(hub, monkeypatch, how)
    assert {form: find_model(f"{MODEL}{form}", revision) for form in FORMS} == online
    assert hub.requests - requests == (len(FORMS) if how == "it fails" else 0)  # each address is tried once
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == len(FORMS)
    assert warnings[0].startswith(f"The hub could not be reached for {MODEL} (")
    assert warnings[0].endswith(f"): commit {COMMIT} is taken from the cache.")


def test_offline_the_only_downloaded_file_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    find_model(f"{MODEL}:Q8_0", "")
    go_offline(hub, monkeypatch, CLOSED)
    assert find_model(MODEL, "").path.name == "m-Q8_0.gguf"


ASKED = f"The repository {MODEL} on the hub has "
NOT_ASKED = f"The hub cannot be reached, and the cached copy of {MODEL} has "


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            f"{MODEL}:Q2_K",
            f"{ASKED}no GGUF file Q2_K; choose one, for example {MODEL}/big/m-BF16-00001-",
        ),
        (f"{MODEL}:Q4", f"{ASKED}several GGUF files; choose one, for example {MODEL}/m-IQ4_0.gguf."),
        (f"{MODEL}/x.gguf", f"{ASKED}no file x.gguf; choose another one."),
        ("org/gone", "The model org/gone is not a local file and cannot be downloaded from the hub (404 "),
        ("/no/such/file.gguf", "There is no model file /no/such/file.gguf; give the path of a GGUF file, or "),
        ("./no/such.gguf", "There is no model file ./no/such.gguf; "),
        ("not a name", "There is no model file not a name; "),
    ],
)
@pytest.mark.usefixtures("hub")
def test_a_failed_download_is_one_sentence(name: str, sentence: str) -> None:
    assert refusal(name).startswith(sentence)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (f"{MODEL}:Q4_0", f"{NOT_ASKED}no GGUF file Q4_0; choose one, for example {MODEL}/m-Q8_0.gguf."),
        (f"{MODEL}/m-Q4_0.gguf", f"{NOT_ASKED}no file m-Q4_0.gguf; choose another one."),
        ("org/gone", "The model org/gone is not a local file and cannot be downloaded from the hub ("),
    ],
)
def test_a_missing_download_is_one_sentence(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str, sentence: str
) -> None:
    find_model(f"{MODEL}:Q8_0", "")
    go_offline(hub, monkeypatch, CLOSED)
    assert refusal(name).startswith(sentence)


def refusal(name: str) -> str:
    with pytest.raises(EngineSetupError) as raised:
        find_model(name, "")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_engine_does_not_wait_for_a_silent_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch, silent: str) -> None:
    online = find_model(MODEL, "")
    monkeypatch.setattr(_hub, "_TIMEOUT_WITH_COPY", 0.1)
    go_offline(hub, monkeypatch, silent)
    assert find_model(MODEL, "") == online


def test_a_missing_revision_is_not_replaced_by_another_one(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    find_model(MODEL, "v1")
    go_offline(hub, monkeypatch, CLOSED)
    with pytest.raises(EngineSetupError, match="cannot be downloaded from the hub"):
        find_model(MODEL, "v2")


@pytest.mark.parametrize("how", OFFLINE)
def test_a_downloaded_model_of_a_gpu_engine_needs_no_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    hub.model = write_tiny_folder(tmp_path / "folder", CHATML).path
    online = find_model_folder(MODEL, extra="vllm")
    requests = hub.requests
    go_offline(hub, monkeypatch, how)
    assert find_model_folder(MODEL, extra="vllm") == online
    assert hub.requests - requests == (how == "it fails")
    fetch_weights(online, lambda _: None)
    assert hub.requests - requests == 2 * (how == "it fails")
    repository = online.path.parents[1]
    assert find_model_folder(str(repository), extra="vllm").path == online.path


def keep(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tiny_model(path)
    return folder


def one_file(folder: Path) -> tuple[Path, Path]:
    return keep(folder, "m.gguf"), folder / "m.gguf"


def several_files(folder: Path) -> tuple[Path, Path]:
    return keep(folder, "m-Q8_0.gguf", "m-Q4_K_M.gguf"), folder / "m-Q4_K_M.gguf"


def in_a_subfolder(folder: Path) -> tuple[Path, Path]:
    return keep(folder, "Q8_0/m.gguf"), folder / "Q8_0" / "m.gguf"


def in_parts(folder: Path) -> tuple[Path, Path]:
    folder.mkdir()
    first = folder / "m-00001-of-00002.gguf"
    write_tiny_parts(first, folder / "m-00002-of-00002.gguf")
    return folder, first


def a_link_to_parts(folder: Path) -> tuple[Path, Path]:
    _, first = in_parts(folder)
    link = folder.with_name("link.gguf")
    link.symlink_to(first)
    return link, first


def a_link_to_a_folder(folder: Path) -> tuple[Path, Path]:
    keep(folder, "m.gguf")
    link = folder.with_name("link")
    link.symlink_to(folder)
    return link, link / "m.gguf"


def a_folder_of_the_cache(folder: Path) -> tuple[Path, Path]:
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    keep(folder, "snapshots/older/m-Q8_0.gguf", "blobs/b10b")
    file = folder / "snapshots" / COMMIT / "m-Q8_0.gguf"
    file.parent.mkdir()
    file.symlink_to("../../blobs/b10b")
    return folder, file


@pytest.mark.parametrize(
    "make",
    [
        one_file,
        several_files,
        in_a_subfolder,
        in_parts,
        a_link_to_parts,
        a_link_to_a_folder,
        a_folder_of_the_cache,
    ],
)
def test_a_model_can_be_a_folder_or_a_link(tmp_path: Path, make: Callable[[Path], tuple[Path, Path]]) -> None:
    given, file = make(tmp_path / "models--org--name")
    assert find_model(str(given), "").path == file


def test_a_model_can_be_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    keep(tmp_path / "models", "m.gguf")
    assert find_model("~/models", "").path == tmp_path / "models" / "m.gguf"


def test_the_revision_of_a_model_in_parts_is_that_of_all_of_them(tmp_path: Path) -> None:
    _, first = in_parts(tmp_path / "m")
    before = find_model(str(first), "").revision
    second = first.with_name("m-00002-of-00002.gguf")
    data = second.read_bytes()
    second.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert find_model(str(first), "").revision != before


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ((), "The folder x has no GGUF file with a language model; choose another one."),
        (("a.txt", "mmproj-F16.gguf"), "The folder x has no GGUF file with a language model; choose another one."),
        (("a.gguf", "b.gguf"), "The folder x has several GGUF files; choose one, for example x/a.gguf."),
    ],
)
def test_a_folder_without_exactly_one_model_is_refused(names: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(EngineSetupError) as raised:
        choose_file(names, "", place="The folder x", root="x")
    assert str(raised.value) == sentence


@pytest.mark.model
def test_a_server_starts_without_the_hub(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "parts").mkdir(parents=True)
    write_tiny_parts(*(model / "parts" / f"m-Q8_0-0000{part}-of-00002.gguf" for part in (1, 2)))
    flags = ("--model", MODEL, "-o", "threads=1", "-o", "slots=1")
    with running_hub(model) as hub:
        variables = hub.variables(tmp_path / "home")
        with start_server(*flags, **variables) as server, connect(server.target) as caller:
            online = caller.model
    with start_server(*flags, **variables) as server, connect(server.target) as caller:
        assert caller.model == online
