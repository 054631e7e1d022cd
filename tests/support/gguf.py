"""Writes a language model of a few kilobytes with a given chat template, as a GGUF file and as a folder."""

import random
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from support.hugging_face import SENTENCE_PIECES, Folder, write_folder

_STRING, _ARRAY, _UINT16, _UINT32, _INT32, _FLOAT32 = 8, 9, 2, 4, 5, 6
_ALIGNMENT = 32
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6
_FIRST_BYTE, _FIRST_PIECE = 3, 259
_WIDTH, _HIDDEN, _CONTEXT = 32, 64, 512
_MERGES = ("< |", "| >", "i m", "e n", "en d", "s y", "s t")

CONTROLS = ("<|im_start|>", "<|im_end|>", "<|im|>")
"""The control tokens of the model, which ends its answers with the second one."""
WORD = "<tool>"
"""A token that is matched before the text is split, but is not a control token."""
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Uint16(int):
    """An integer that is written in two bytes, which llama.cpp requires for the numbers of parts."""


class Int32(int):
    """An integer that is written with a sign, which llama.cpp requires for the number of tensors."""


Value = str | int | float | Sequence[str] | Sequence[int] | Sequence[float]
_LAYERS: Mapping[str, Value] = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.context_length": _CONTEXT,
    "llama.embedding_length": _WIDTH,
    "llama.feed_forward_length": _HIDDEN,
    "llama.attention.head_count": 2,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.dimension_count": _WIDTH // 2,
}


def write_gguf(path: Path, values: Mapping[str, Value], tensors: Mapping[str, tuple[int, ...]]) -> Path:
    """Writes metadata, and tensors of random numbers. A shape begins with the innermost dimension."""
    draw = random.Random(7)  # noqa: S311 - weights are no secret
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(values))
    head += b"".join(_string(key) + _value(value) for key, value in values.items())
    data = b""
    for name, shape in tensors.items():
        head += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        floats = [1.0] * count if len(shape) == 1 else [draw.gauss(0, 0.3) for _ in range(count)]
        data += struct.pack(f"<{count}f", *floats)
        data += bytes(-len(data) % _ALIGNMENT)
    path.write_bytes(head + bytes(-len(head) % _ALIGNMENT) + data)
    return path


def write_tiny_model(path: Path, template: str | None = CHATML) -> Path:
    """Writes a model with one layer that llama.cpp can load, with a byte-level vocabulary and a few merges."""
    return write_gguf(path, _metadata(template), _tensors(len(_tokens())))


def write_sentence_piece_model(path: Path, template: str) -> Path:
    """Writes the same model with the vocabulary of `write_sentence_piece`."""
    values: dict[str, Value] = {
        **_LAYERS,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": SENTENCE_PIECES,
        "tokenizer.ggml.token_type": [
            _UNKNOWN if place == 0 else _CONTROL if place < _FIRST_BYTE else _BYTE if place < _FIRST_PIECE else _NORMAL
            for place in range(len(SENTENCE_PIECES))
        ],
        "tokenizer.ggml.scores": [-float(place) for place in range(len(SENTENCE_PIECES))],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": template,
    }
    return write_gguf(path, values, _tensors(len(SENTENCE_PIECES)))


def write_tiny_parts(first: Path, second: Path) -> None:
    """Writes the same model in two files."""
    tensors = list(_tensors(len(_tokens())).items())
    split: dict[str, Value] = {"split.count": Uint16(2), "split.tensors.count": Int32(len(tensors))}
    write_gguf(first, {**_metadata(CHATML), **split, "split.no": Uint16(0)}, dict(tensors[:4]))
    write_gguf(second, {**split, "split.no": Uint16(1)}, dict(tensors[4:]))


def _metadata(template: str | None) -> dict[str, Value]:
    tokens = _tokens()
    others = len(tokens) - len(CONTROLS) - 1
    kinds = [_CONTROL] * len(CONTROLS) + [_USER_DEFINED] + [_NORMAL] * others
    values: dict[str, Value] = {
        **_LAYERS,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": _MERGES,
        "tokenizer.ggml.eos_token_id": 1,
    }
    if template is not None:
        values["tokenizer.chat_template"] = template
    return values


def _tensors(tokens: int) -> dict[str, tuple[int, ...]]:
    block = {
        "attn_q": (_WIDTH, _WIDTH),
        "attn_k": (_WIDTH, _WIDTH),
        "attn_v": (_WIDTH, _WIDTH),
        "attn_output": (_WIDTH, _WIDTH),
        "ffn_gate": (_WIDTH, _HIDDEN),
        "ffn_up": (_WIDTH, _HIDDEN),
        "ffn_down": (_HIDDEN, _WIDTH),
        "attn_norm": (_WIDTH,),
        "ffn_norm": (_WIDTH,),
    }
    return {
        "token_embd.weight": (_WIDTH, tokens),
        "output.weight": (_WIDTH, tokens),
        "output_norm.weight": (_WIDTH,),
        **{f"blk.0.{name}.weight": shape for name, shape in block.items()},
    }


def write_tiny_folder(path: Path, template: str | None = CHATML) -> Folder:
    """Writes the same vocabulary as a Hugging Face folder."""
    ids = {token: token_id for token_id, token in enumerate(_tokens())}
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in _MERGES)]
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.add_special_tokens(list(CONTROLS))
    tokenizer.add_tokens([AddedToken(WORD, normalized=False)])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    metadata = {} if template is None else {"chat_template": template}
    return write_folder(path, tokenizer, tokenizer_config={"eos_token": CONTROLS[1], **metadata})


def _tokens() -> list[str]:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*CONTROLS, WORD, *alphabet, *(merge.replace(" ", "") for merge in _MERGES)]


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    if isinstance(value, int | float):
        kind, layout = _number(value)
        return struct.pack("<I" + layout, kind, value)
    if isinstance(value[0], float):
        return struct.pack(f"<IIQ{len(value)}f", _ARRAY, _FLOAT32, len(value), *value)
    if isinstance(value[0], str):
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(_string(str(item)) for item in value)
    return struct.pack(f"<IIQ{len(value)}i", _ARRAY, _INT32, len(value), *value)


def _number(value: float) -> tuple[int, str]:
    match value:
        case Uint16():
            return _UINT16, "H"
        case Int32():
            return _INT32, "i"
        case int():
            return _UINT32, "I"
        case _:
            return _FLOAT32, "f"
