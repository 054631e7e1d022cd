"""`modelopt.torch.quantization`: calibrates a model in place."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from _scenario import scenario

FP8_DEFAULT_CFG: dict[str, Any] = {
    "quant_cfg": [
        {"quantizer_name": "*", "enable": False},
        {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": (4, 3), "axis": None}, "enable": True},
        {"quantizer_name": "*input_quantizer", "cfg": {"num_bits": (4, 3), "axis": None}, "enable": True},
        {"quantizer_name": "*lm_head*", "enable": False},
    ],
    "algorithm": "max",
}


class TensorQuantizer:
    """The range of a tensor, as found by calibration."""

    maxbound = 448.0

    def __init__(self, largest: float | None) -> None:
        self.amax = None if largest is None else import_module("torch").Range(largest)


def quantize(model: Any, config: dict[str, Any], forward_loop: Callable[[Any], None] | None = None) -> Any:
    """Adds quantizers, and calls the loop, which runs the model to find the ranges of activations."""
    assert config is not FP8_DEFAULT_CFG
    assert set(config) == {"quant_cfg", "algorithm"}
    assert forward_loop is not None, "static scales need texts"
    assert model.device == "cuda"
    assert model.is_evaluated
    scenario().reach("calibrate")
    forward_loop(model)
    assert model.seen, "the loop did not run the model"
    for entry in config["quant_cfg"]:
        assert set(entry) <= {"quantizer_name", "cfg", "enable", "parent_class"}
        if "lm_head" in entry["quantizer_name"]:
            model.head_is_quantized = entry["enable"]
    model.is_quantized = True
    layer = "model.layers.0.mlp.down_proj"
    model.quantizers = {
        f"{layer}.weight_quantizer": TensorQuantizer(scenario().largest_weight),
        f"{layer}.input_quantizer": TensorQuantizer(6.0),
        f"{layer}.output_quantizer": TensorQuantizer(None),
    }
    return model
