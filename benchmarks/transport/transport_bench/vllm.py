"""The requirements of vLLM's front-end in Rust: the program, and a folder that describes the model."""

import json
from pathlib import Path

from doherty_engine.synthetic._tokenizer import END_OF_SEQUENCE, TOKEN_NAME, TOKEN_TEXT, VOCABULARY_SIZE

RELEASE = "0.33.0"
STAND_IN = Path(__file__).parent / "servers/vllm_engine.py"


def write_model(folder: Path) -> None:
    """Writes a model whose tokenizer has the synthetic engine's tokens, so that the same ids are the same texts."""
    folder.mkdir(exist_ok=True)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": VOCABULARY_SIZE,
        "eos_token_id": END_OF_SEQUENCE,
        "max_position_embeddings": 8192,
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "torch_dtype": "bfloat16",
    }
    eos = TOKEN_NAME[END_OF_SEQUENCE].decode()
    files = {
        "config.json": config,
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


def _tokenizer() -> dict[str, object]:
    """A byte-level BPE without merges: one token per byte, which is acceptable for prompts of two words."""
    signs = _signs()
    special = [token_id for token_id, text in enumerate(TOKEN_TEXT) if not text]
    vocabulary = {"".join(signs[byte] for byte in text): token_id for token_id, text in enumerate(TOKEN_TEXT) if text}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": token_id, "content": TOKEN_NAME[token_id].decode(), "special": True} | flags for token_id in special
        ],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }


def _signs() -> dict[int, str]:
    """Maps each byte to its character in a byte-level tokenizer: printable ones to themselves."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + index) for index, byte in enumerate(others)}
