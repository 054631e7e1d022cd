"""A checkpoint in FP8 whose activations have static scales, in the format compressed-tensors, from random weights.

Online quantization measures every activation before it rounds it. With a scale that is in the checkpoint, rounding is
part of the kernel before. Weights of Llama's size and a scale that fits what comes out of a norm: speed and numeric
range are as in a real checkpoint, and its text is noise.
"""

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from _shape import HEAD, HEADS, HIDDEN, INTERMEDIATE, KV_HEADS, LAYERS, VOCABULARY, write_shape

_LARGEST = 448.0
"""The largest number of the format e4m3."""
_INPUT_SCALE = 0.02
_DEVIATION = 0.02
_LAYERS_A_FILE = 8


def quantization_config(*, lm_head: bool, static: bool = True) -> dict[str, Any]:
    """Returns the field quantization_config of config.json."""
    weights = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False}
    inputs = weights | {"dynamic": False} if static else weights | {"strategy": "token", "dynamic": True}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group | ({"targets": ["Linear", "re:.*lm_head"]} if lm_head else {})},
        "ignore": [] if lm_head else ["lm_head"],
        "kv_cache_scheme": None,
    }


def write_checkpoint(folder: Path, *, lm_head: bool) -> Path:
    """Writes the config, the tokenizer and 8 GB of weights, which are generated on the GPU."""
    torch, save_file = import_module("torch"), import_module("safetensors.torch").save_file

    write_shape(folder, quantization_config=quantization_config(lm_head=lm_head))
    places: dict[str, str] = {}
    for number, tensors in enumerate(_files(torch, lm_head=lm_head)):
        name = f"model-{number:05}.safetensors"
        save_file(tensors, str(folder / name))
        places |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def _files(torch: Any, *, lm_head: bool) -> Iterator[dict[str, Any]]:
    generator = torch.Generator("cuda").manual_seed(1)

    def plain(*shape: int) -> Any:
        numbers = torch.randn(shape, generator=generator, device="cuda", dtype=torch.bfloat16)
        return (numbers * _DEVIATION).cpu()

    def linear(name: str, rows: int, columns: int) -> dict[str, Any]:
        numbers = torch.randn((rows, columns), generator=generator, device="cuda", dtype=torch.bfloat16) * _DEVIATION
        scale = numbers.abs().max().float() / _LARGEST
        return {
            f"{name}.weight": (numbers.float() / scale).to(torch.float8_e4m3fn).cpu(),
            f"{name}.weight_scale": scale.reshape(1).to(torch.bfloat16).cpu(),
            f"{name}.input_scale": torch.tensor([_INPUT_SCALE], dtype=torch.bfloat16),
        }

    head = linear("lm_head", VOCABULARY, HIDDEN) if lm_head else {"lm_head.weight": plain(VOCABULARY, HIDDEN)}
    ones = torch.ones(HIDDEN, dtype=torch.bfloat16)
    yield {"model.embed_tokens.weight": plain(VOCABULARY, HIDDEN), "model.norm.weight": ones.clone(), **head}
    for first in range(0, LAYERS, _LAYERS_A_FILE):
        tensors: dict[str, Any] = {}
        for layer in range(first, first + _LAYERS_A_FILE):
            name = f"model.layers.{layer}"
            for norm in ("input_layernorm", "post_attention_layernorm"):
                tensors[f"{name}.{norm}.weight"] = ones.clone()
            for part, rows, columns in (
                ("self_attn.q_proj", HEADS * HEAD, HIDDEN),
                ("self_attn.k_proj", KV_HEADS * HEAD, HIDDEN),
                ("self_attn.v_proj", KV_HEADS * HEAD, HIDDEN),
                ("self_attn.o_proj", HIDDEN, HEADS * HEAD),
                ("mlp.gate_proj", INTERMEDIATE, HIDDEN),
                ("mlp.up_proj", INTERMEDIATE, HIDDEN),
                ("mlp.down_proj", HIDDEN, INTERMEDIATE),
            ):
                tensors |= linear(f"{name}.{part}", rows, columns)
        yield tensors
