"""Draft heads for Llama 3 8B's shape without weights, of which vLLM draws what is accepted at published rates.

So a step costs what it costs with the real head, and gives as many tokens as others measured for the real head.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from _shape import CONFIG, VOCABULARY
from _static_fp8 import quantization_config

PLUGIN = """
def register():
    from vllm.model_executor.models.llama_eagle3 import Eagle3LlamaForCausalLM
    Eagle3LlamaForCausalLM.has_own_lm_head = True
"""
"""vLLM learns from a head's weights that it has an lm_head of its own; made-up weights do not say so, and it would take
the model's, which is four times as large."""


@dataclass(frozen=True, slots=True)
class Head:
    """A head by its config.json, and the chances that the first, the first two, ... of its drafts are accepted."""

    config: Mapping[str, object]
    rates: tuple[float, ...]
    is_target_static: bool = False
    """Whether it drafts for a checkpoint with static FP8 scales and an lm_head in FP8."""
    engine_args: dict[str, object] = field(default_factory=dict)
    """Further arguments of vLLM's engine."""

    def write(self, folder: Path) -> Path:
        """Writes the folder of the head."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(dict(self.config)))
        return folder

    @property
    def drawn(self) -> dict[str, object]:
        """Returns the fields of vLLM's SpeculativeConfig that make it draw the accepted drafts."""
        return {"rejection_sample_method": "synthetic", "synthetic_acceptance_rates": list(self.rates)}

    @property
    def tokens_a_step(self) -> float:
        """Returns the mean number of accepted drafts, plus one."""
        return 1 + sum(self.rates)


def falling(tokens_a_step: float, drafts: int) -> tuple[float, ...]:
    """Returns rates a, a^2, a^3, ... that result in so many tokens per step."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        total = sum(middle**place for place in range(1, drafts + 1))
        low, high = (middle, high) if total < tokens_a_step - 1 else (low, middle)
    return tuple(round(low**place, 4) for place in range(1, drafts + 1))


_EAGLE3 = CONFIG | {
    "architectures": ["LlamaForCausalLMEagle3"],
    "draft_vocab_size": 32_000,
    "num_hidden_layers": 1,
    "rope_theta": 10_000.0,
}
"""Shape of yuhuili/EAGLE3-LLaMA3.1-Instruct-8B."""
_EAGLE3_RATES = (0.77, 0.59, 0.43)
"""The mean lengths 2.36 and 2.79 for two and three drafts on MT-bench, greedy (vLLM's issue 20780); how the first two
share their sum is assumed."""
_DFLASH = CONFIG | {
    "architectures": ["DFlashDraftModel"],
    "attention_bias": False,
    "block_size": 10,
    "dflash_config": {"mask_token_id": VOCABULARY - 254, "target_layer_ids": [1, 8, 15, 22, 29]},
    "layer_types": ["full_attention"] * 5,
    "max_window_layers": 5,
    "model_type": "qwen3",
    "num_hidden_layers": 5,
    "num_target_layers": 32,
    "sliding_window": None,
    "use_sliding_window": False,
}
"""Shape of z-lab/LLaMA3.1-8B-Instruct-DFlash-UltraChat."""
_DFLASH_RATES = falling(3.73, 9)
"""Mean length 3.73 on Alpaca (arXiv 2602.06036, table 5); the split among the drafts is assumed."""
_FP8 = quantization_config(lm_head=False)
# vLLM 0.26 joins a DFlash head's weights for keys and values into one matrix, and reads them as they are.
_FP8_DFLASH = _FP8 | {"ignore": ["lm_head", r"re:.*\.(q|k|v|qkv)_proj"]}

HEADS = {
    "eagle3": Head(_EAGLE3, _EAGLE3_RATES),
    "eagle3-fp8": Head(_EAGLE3 | {"quantization_config": _FP8}, _EAGLE3_RATES, is_target_static=True),
    "dflash": Head(_DFLASH, _DFLASH_RATES, is_target_static=True),
    "dflash-fp8": Head(_DFLASH | {"quantization_config": _FP8_DFLASH}, _DFLASH_RATES, is_target_static=True),
    # As vLLM captures CUDA graphs by itself: up to 512 tokens, where 64 streams with 9 drafts have 640.
    "dflash-512": Head(
        _DFLASH,
        _DFLASH_RATES,
        is_target_static=True,
        engine_args={"max_cudagraph_capture_size": 512},
    ),
}


def write_plugin(folder: Path) -> Path:
    """Writes a plug-in of vLLM, which it finds where the folder is in PYTHONPATH."""
    info = folder / "doherty_heads-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: doherty-heads\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[vllm.general_plugins]\ndoherty_heads = doherty_heads:register\n")
    (folder / "doherty_heads.py").write_text(PLUGIN)
    return folder
