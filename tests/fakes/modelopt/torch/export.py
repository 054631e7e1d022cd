"""`modelopt.torch.export`: writes a checkpoint that vLLM and TensorRT-LLM load."""

import json
import struct
import tempfile
from pathlib import Path
from typing import Any

from _scenario import scenario


def export_hf_checkpoint(
    model: Any,
    dtype: Any = None,
    export_dir: Path | str = tempfile.gettempdir(),  # noqa: B008 - as the real one
    save_modelopt_state: bool = False,
    components: list[str] | None = None,
    extra_state_dict: dict[str, Any] | None = None,
    max_shard_size: int | str = "10GB",
    **kwargs: Any,
) -> None:
    """Writes the weights and their description in config.json; the caller writes the tokenizer."""
    del dtype, save_modelopt_state, components, extra_state_dict, max_shard_size
    assert not kwargs
    assert model.is_quantized
    folder = Path(export_dir)
    left_out = ["model.embed_tokens"] if model.head_is_quantized else ["lm_head", "model.embed_tokens"]
    quantization = {"quant_algo": "FP8", "kv_cache_quant_algo": None, "exclude_modules": left_out}
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": quantization}))
    quantizer = model.quantizers["model.layers.0.mlp.down_proj.weight_quantizer"]
    scale = quantizer.amax.max() / quantizer.maxbound
    header = json.dumps(
        {
            "w": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]},
            "weight_scale": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]},
        }
    ).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(8) + struct.pack("<f", scale)
    (folder / "model.safetensors").write_bytes(weights)
    scenario().reach("save")
    quantization_config = {"quant_algo": "FP8", "quant_method": "modelopt", "ignore": left_out}
    (folder / "config.json").write_text(json.dumps(model.config | {"quantization_config": quantization_config}))
