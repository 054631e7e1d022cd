"""The tokenizer of a Hugging Face folder, with real tokenizers of all three types."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models

from doherty_engine import EngineSetupError, Message, Role, SamplingDefaults
from doherty_engine.text import HuggingFaceTokenizer, Utf8Detokenizer, find_model_folder
from support.hub import COMMIT, MODEL, Hub, running_hub
from support.hugging_face import (
    BEGIN,
    END,
    LLAMA3_SPECIALS,
    TURN_END,
    Folder,
    user,
    write_folder,
    write_llama3,
    write_sentence_piece,
)
from support.smollm2 import write_smollm2

TEXTS = [
    "Name three colors.",
    "  two  spaces\n\tand\r\n",
    "Aß€水🙂 é\U0001f469\u200d\U0001f680!",
    "<0x41> Ġ",
    "0123456",
]


def load(folder: Folder) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(find_model_folder(str(folder.path), extra="vllm"), extra="vllm")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Folder]:
    path = tmp_path_factory.mktemp("tokenizers")
    return {
        "llama3": write_llama3(path / "llama3"),
        "smollm2": write_smollm2(path / "smollm2"),
        "sentence piece": write_sentence_piece(path / "sentence-piece"),
    }


@pytest.fixture(scope="module")
def tokenizers(folders: dict[str, Folder]) -> dict[str, HuggingFaceTokenizer]:
    return {name: load(folder) for name, folder in folders.items()}


def test_importing_the_package_loads_no_library() -> None:
    code = (
        "import sys, doherty_engine.text; "
        "sys.exit(bool({'transformers', 'tokenizers', 'jinja2', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["llama3", "smollm2", "sentence piece"])
@pytest.mark.parametrize("text", TEXTS)
def test_the_bytes_of_the_tokens_are_the_text(
    tokenizers: dict[str, HuggingFaceTokenizer], name: str, text: str
) -> None:
    tokenizer = tokenizers[name]
    ids = tokenizer.encode_answer(text)
    assert tokenizer.decode(ids) == text.encode()
    detokenizer = Utf8Detokenizer()
    pieces = [detokenizer.feed(token_id, tokenizer.pieces[token_id]) for token_id in ids]
    assert "".join(piece.text for piece in pieces if piece is not None) == text
    assert detokenizer.flush() is None


def test_an_emoji_is_split_into_tokens_of_its_bytes(tokenizers: dict[str, HuggingFaceTokenizer]) -> None:
    for tokenizer in tokenizers.values():
        pieces = [tokenizer.pieces[token_id] for token_id in tokenizer.encode_answer("🫠")]
        assert len(pieces) > 1
        assert b"".join(pieces) == "🫠".encode()


def test_the_packaged_models_tokens_are_those_of_llama_cpp(folders: dict[str, Folder]) -> None:
    text = "<|im_start|>user\nName three colors.<|im_end|>\n<|im_start|>assistant\n"
    assert folders["smollm2"].texts(text) == [1, 4093, 198, 5820, 1296, 4683, 30, 2, 198, 1, 520, 9531, 198]


def test_special_tokens_add_no_text(folders: dict[str, Folder], tokenizers: dict[str, HuggingFaceTokenizer]) -> None:
    tokenizer = tokenizers["llama3"]
    assert [tokenizer.pieces[folders["llama3"].id_of(token)] for token in LLAMA3_SPECIALS] == [b""] * 5
    assert all(piece for token_id, piece in enumerate(tokenizer.pieces) if token_id >= 5)
    assert tokenizer.vocabulary_size == folders["llama3"].tokenizer.get_vocab_size() == len(tokenizer.pieces)


def test_a_conversation_is_rendered_with_one_begin_token(
    folders: dict[str, Folder], tokenizers: dict[str, HuggingFaceTokenizer]
) -> None:
    tokenizer, library = tokenizers["llama3"], folders["llama3"].tokenizer
    ids = tokenizer.render([Message(Role.SYSTEM, "Be brief."), user(" Hello ")])
    assert library.decode(ids, skip_special_tokens=False) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert ids.count(folders["llama3"].id_of(BEGIN)) == 1


@pytest.mark.parametrize("text", ["Hello", f"{BEGIN}Hello"])
def test_a_raw_text_has_one_begin_token(
    folders: dict[str, Folder], tokenizers: dict[str, HuggingFaceTokenizer], text: str
) -> None:
    folder = folders["llama3"]
    assert tokenizers["llama3"].encode(text) == [folder.id_of(BEGIN), *folder.texts("Hello")]


def test_a_prefix_gets_no_leading_space(tokenizers: dict[str, HuggingFaceTokenizer]) -> None:
    tokenizer = tokenizers["sentence piece"]
    for text in ("ab", " ab", "b"):
        assert tokenizer.decode(tokenizer.encode_answer(text)) == text.encode()
    with pytest.raises(ValueError, match="changes this text"):
        tokenizer.encode_answer("a\N{LOWER ONE EIGHTH BLOCK}b")  # the characters of a space in a token


def test_all_end_tokens_are_known(folders: dict[str, Folder], tokenizers: dict[str, HuggingFaceTokenizer]) -> None:
    llama3 = folders["llama3"]
    assert tokenizers["llama3"].eos_ids == {llama3.id_of(END), llama3.id_of(TURN_END)}
    assert tokenizers["sentence piece"].eos_ids == {2}


@pytest.mark.parametrize(
    ("generation", "config", "ends"),
    [({}, {}, {1}), ({"eos_token_id": 7}, {"eos_token_id": 8}, {1, 7}), ({}, {"eos_token_id": [8, 9]}, {1, 8, 9})],
)
def test_end_tokens_are_read_from_three_files(
    tmp_path: Path, generation: dict[str, Any], config: dict[str, Any], ends: set[int]
) -> None:
    folder = write_llama3(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(folder).eos_ids == ends


def test_default_sampling_comes_from_the_generation_config(tmp_path: Path) -> None:
    folder = write_llama3(tmp_path, top_k=50, min_p=0.05, repetition_penalty=1, do_sample=True)
    expected = SamplingDefaults(temperature=0.6, top_p=0.9, top_k=50, min_p=0.05, repetition_penalty=1.0)
    assert load(folder).default_sampling == expected
    (tmp_path / "generation_config.json").unlink()
    assert load(folder).default_sampling == SamplingDefaults()


def test_a_template_may_refuse_a_conversation(tmp_path: Path) -> None:
    folder = write_llama3(tmp_path)
    template = "{% if messages | length > 1 %}{{ raise_exception('one message,\n please') }}{% endif %}Hello"
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match=r"^the model's chat template refuses it: one message, please$"):
        load(folder).render([user("Hello"), user("Hello")])


def test_a_model_without_a_template_refuses_conversations(tokenizers: dict[str, HuggingFaceTokenizer]) -> None:
    assert not tokenizers["sentence piece"].has_chat_template
    assert tokenizers["llama3"].has_chat_template
    with pytest.raises(ValueError, match="no chat template"):
        tokenizers["sentence piece"].render([user("Hello")])


def test_the_tokenizer_neither_truncates_nor_pads_a_prompt(tmp_path: Path) -> None:
    folder = write_llama3(tmp_path)
    folder.tokenizer.enable_truncation(4)
    folder.tokenizer.enable_padding(length=4)
    folder.tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load(folder)
    assert len(tokenizer.encode("Name three colors of the sky")) > 4
    assert len(tokenizer.encode("N")) == 2


def test_without_a_decoder_tokens_are_words(tmp_path: Path) -> None:
    library = Tokenizer(models.WordLevel({"w0": 0, "w1": 1}, unk_token="w0"))  # noqa: S106 - no password
    tokenizer = load(write_folder(tmp_path, library))
    assert tokenizer.decode([1, 0]) == b" w1 w0"
    assert tokenizer.eos_ids == frozenset()


def test_an_unknown_kind_of_decoder_is_refused(tmp_path: Path) -> None:
    library = Tokenizer(models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))  # noqa: S106 - as above
    library.decoder = decoders.WordPiece()
    with pytest.raises(EngineSetupError, match="a decoder of the kind WordPiece, which is not supported"):
        load(write_folder(tmp_path, library))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, folders: dict[str, Folder], tmp_path: Path) -> Iterator[Hub]:
    with running_hub(folders["llama3"].path) as running:
        running.take_over(monkeypatch, tmp_path)
        yield running


def test_a_tokenizer_can_be_loaded_from_the_hub(hub: Hub, folders: dict[str, Folder]) -> None:
    (folders["llama3"].path / "model.safetensors").write_bytes(b"large")
    folder = find_model_folder(MODEL, "main", extra="vllm")
    assert (folder.name, folder.revision) == (MODEL, COMMIT)
    assert HuggingFaceTokenizer(folder, extra="vllm").vocabulary_size > 0
    assert "model.safetensors" not in {name for _, name, _ in hub.requested_files}


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("org/gone", "The model org/gone is not a local folder and cannot be downloaded from the hub (404 "),
        ("/no/such", "There is no model folder /no/such; give the path of one, or a model on the hub as "),
        ("name", "There is no model folder name; "),
    ],
)
@pytest.mark.usefixtures("hub")
def test_a_missing_model_is_reported(model: str, sentence: str) -> None:
    with pytest.raises(EngineSetupError) as raised:
        find_model_folder(model, extra="vllm")
    assert str(raised.value).startswith(sentence)


def test_a_model_has_the_name_of_its_folder(folders: dict[str, Folder]) -> None:
    folder = find_model_folder(str(folders["llama3"].path), extra="vllm")
    assert (folder.name, folder.revision) == ("llama3", "")


@pytest.mark.parametrize("missing", ["transformers", "jinja2"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, folders: dict[str, Folder], missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        EngineSetupError, match=rf"needs the package {missing}; run `.* -m pip install 'doherty\[vllm\]'`"
    ):
        load(folders["llama3"])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("tokenizer.json", "{}", r"The tokenizer of .* cannot be read \("),
        ("generation_config.json", "[", r"generation_config.json cannot be read \("),
        ("config.json", "[]", "config.json is not a JSON object"),
    ],
)
def test_a_broken_folder_is_refused(tmp_path: Path, name: str, content: str | None, sentence: str) -> None:
    folder = write_llama3(tmp_path)
    (tmp_path / "generation_config.json").write_text("{}")
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(EngineSetupError, match=sentence):
        load(folder)
