"""A small Llama inside the shape of Llama 3 8B: the same text, at the cost of an 8B.

The small model's weights lie in the corner of larger matrices whose other entries are zero. It stays the same model up
to rounding:

* RMSNorm divides by the root of a mean over 4096 numbers, of which the small model fills `hidden`. So its weights are
  multiplied by sqrt(hidden / 4096), and its epsilon by hidden / 4096.
* A head of 64 lies in a head of 128. Rotary pair i of a 64 turns as fast as pair 2i of a 128, so that is where its
  numbers go. Attention divides by sqrt(128) in place of sqrt(64), so queries are multiplied by sqrt(2).
* Layers beyond those of the small model are zero, and add nothing. Words beyond its vocabulary have the logit 0.
"""

import json
import shutil
from functools import partial
from importlib import import_module
from math import sqrt
from pathlib import Path
from typing import Any

from _shape import HEAD, HEADS, HIDDEN, INTERMEDIATE, KV_HEADS, LAYERS, VOCABULARY

_COPIED = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
_NORMS = ("input_layernorm", "post_attention_layernorm")


def widen(small: Path, wide: Path) -> Path:
    """Writes the wide model, 16 GB in bfloat16, as a Hugging Face folder.

    Raises:
        ValueError: the small model does not fit into the shape.
    """
    config = json.loads((small / "config.json").read_text())
    torch = import_module("torch")
    files = import_module("safetensors.torch")
    weights = files.load_file(small / "model.safetensors")
    rows = _rows(torch, config)
    wide.mkdir(parents=True, exist_ok=True)
    places: dict[str, str] = {}

    def save(name: str, tensors: dict[str, Any]) -> None:
        files.save_file(tensors, str(wide / name), {"format": "pt"})
        places.update(dict.fromkeys(tensors, name))

    words = weights["model.embed_tokens.weight"]
    save(
        "model-ends.safetensors",
        {
            "model.embed_tokens.weight": pad(torch, words, VOCABULARY, HIDDEN),
            "lm_head.weight": pad(torch, weights.get("lm_head.weight", words), VOCABULARY, HIDDEN),
            "model.norm.weight": pad_norm(torch, weights["model.norm.weight"]),
        },
    )
    for layer in range(LAYERS):
        name = f"model.layers.{layer}."
        parts = {key.removeprefix(name): value for key, value in weights.items() if key.startswith(name)}
        save(f"model-{layer:02}.safetensors", {name + key: value for key, value in _layer(torch, parts, rows).items()})
    (wide / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (wide / "config.json").write_text(json.dumps(config | _wide_config(config)))
    for copied in _COPIED:
        if (small / copied).exists():
            shutil.copy(small / copied, wide / copied)
    return wide


def pad(  # noqa: PLR0913, PLR0917 - a matrix, its new shape, and where it goes
    torch: Any, tensor: Any, rows: int, columns: int, at: Any = None, across: Any = None
) -> Any:
    """Copies a matrix into a larger one of zeros: into the corner, or to the given rows and columns."""
    whole = torch.zeros(rows, columns, dtype=torch.bfloat16)
    if tensor is not None:
        at = torch.arange(tensor.shape[0]) if at is None else at
        across = torch.arange(tensor.shape[1]) if across is None else across
        whole[at[:, None], across[None]] = tensor.to(torch.bfloat16)
    return whole


def pad_norm(torch: Any, tensor: Any) -> Any:
    """Returns the weights of an RMSNorm over HIDDEN numbers; only those of the small model are not zero."""
    whole = torch.zeros(HIDDEN, dtype=torch.bfloat16)
    if tensor is not None:
        whole[: len(tensor)] = (tensor.float() * sqrt(len(tensor) / HIDDEN)).to(torch.bfloat16)
    return whole


def _rows(torch: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Returns the new indices of the rows of queries, keys and values, and of the columns that read the values."""
    heads, kv_heads, head = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    group, wide_group = heads // kv_heads, HEADS // KV_HEADS
    if group > wide_group or kv_heads > KV_HEADS or config["num_hidden_layers"] > LAYERS or HEAD % head:
        raise ValueError(f"{heads} heads of {head} for {kv_heads} of keys do not fit into Llama 3 8B's shape")
    pairs = torch.arange(head // 2) * (HEAD // head)
    rotated = torch.cat([pairs, pairs + HEAD // 2])
    number = torch.arange(heads)
    of_query = number // group * wide_group + number % group

    def rows(numbers: Any, inside: Any) -> Any:
        return (numbers[:, None] * HEAD + inside[None]).reshape(-1)

    return {
        "q": rows(of_query, rotated),
        "k": rows(torch.arange(kv_heads), rotated),
        "v": rows(torch.arange(kv_heads), torch.arange(head)),
        "o": rows(of_query, torch.arange(head)),
        "query_factor": sqrt(HEAD / head),
    }


def _layer(torch: Any, parts: dict[str, Any], rows: dict[str, Any]) -> dict[str, Any]:
    """Returns the tensors of a layer. All are zero if the small model has no such layer."""

    def get(name: str) -> Any:
        return parts.get(f"{name}.weight")

    query = get("self_attn.q_proj")
    put = partial(pad, torch)
    made = {
        "self_attn.q_proj": put(
            None if query is None else query.float() * rows["query_factor"], HEADS * HEAD, HIDDEN, rows["q"]
        ),
        "self_attn.k_proj": put(get("self_attn.k_proj"), KV_HEADS * HEAD, HIDDEN, rows["k"]),
        "self_attn.v_proj": put(get("self_attn.v_proj"), KV_HEADS * HEAD, HIDDEN, rows["v"]),
        "self_attn.o_proj": put(get("self_attn.o_proj"), HIDDEN, HEADS * HEAD, None, rows["o"]),
        "mlp.gate_proj": put(get("mlp.gate_proj"), INTERMEDIATE, HIDDEN),
        "mlp.up_proj": put(get("mlp.up_proj"), INTERMEDIATE, HIDDEN),
        "mlp.down_proj": put(get("mlp.down_proj"), HIDDEN, INTERMEDIATE),
        **{name: pad_norm(torch, get(name)) for name in _NORMS},
    }
    return {f"{name}.weight": tensor for name, tensor in made.items()}


def _wide_config(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD,
        "vocab_size": VOCABULARY,
        "rms_norm_eps": config["rms_norm_eps"] * config["hidden_size"] / HIDDEN,
        "tie_word_embeddings": False,
    }
