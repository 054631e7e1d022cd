"""The program that makes a checkpoint in FP8 with static scales, by NVIDIA's ModelOpt, on one GPU.

A process of its own gives all of the GPU's memory back, and keeps what the libraries print away from the command's
output. It reads one line of JSON (`model`, `folder`, `sequences`, `lm_head`, `device`), says what it does in lines of
JSON, and ends with its input: so it ends with the command, however that ends.
"""

import copy
import json
import math
import os
import sys
import threading
from importlib import import_module
from typing import Any

from doherty_engine._errors import first_line

_FP8 = {"num_bits": (4, 3), "axis": None}
"""E4M3, one scale for the whole tensor: as ModelOpt's own FP8_DEFAULT_CFG has it, which leaves lm_head out."""
_TOLD_EVERY = 8


def main() -> None:
    """Makes the checkpoint."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # for what libraries print

    def say(**message: str) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        quantize(order, say)
    except Exception as error:  # noqa: BLE001  ModelOpt, transformers and CUDA have no base in common
        say(error=f"{type(error).__name__}: {first_line(error)}")
    os._exit(0)  # before the end of input is seen, which comes with the end of these answers


def quantize(order: dict[str, Any], say: Any) -> None:
    """Loads, calibrates and writes; `say` is told what is done."""
    say(doing="importing ModelOpt")
    quantization = import_module("modelopt.torch.quantization")
    export = import_module("modelopt.torch.export")
    torch, transformers = import_module("torch"), import_module("transformers")
    say(doing="loading the model")
    model = transformers.AutoModelForCausalLM.from_pretrained(order["model"], dtype="auto").to(order["device"]).eval()
    sequences = order["sequences"]

    def calibrate(quantizing: Any) -> None:
        with torch.inference_mode():
            for number, ids in enumerate(sequences):
                if number % _TOLD_EVERY == 0:
                    say(doing=f"calibrating: text {number + 1} of {len(sequences)}")
                quantizing(input_ids=torch.tensor([ids], device=order["device"]), use_cache=False)

    quantization.quantize(model, configuration(quantization, lm_head=order["lm_head"]), forward_loop=calibrate)
    check_ranges(model)
    say(doing="writing the checkpoint")
    export.export_hf_checkpoint(model, export_dir=order["folder"])


def configuration(quantization: Any, *, lm_head: bool) -> dict[str, Any]:
    """ModelOpt's FP8 for all layers, and for lm_head too where it has weights of its own."""
    made: dict[str, Any] = copy.deepcopy(quantization.FP8_DEFAULT_CFG)
    if lm_head:
        made["quant_cfg"] += [
            {"quantizer_name": f"*lm_head*{kind}_quantizer", "enable": True, "cfg": dict(_FP8)}
            for kind in ("weight", "input")
        ]
    return made


def check_ranges(model: Any) -> None:
    """Gives tensors whose values are all zero a scale of 1.

    ModelOpt 0.47 divides such weights by a scale of 0, and the model would answer NaN. Pruned models and models with
    added layers have weights like that.

    Raises:
        ValueError: The range of a tensor is not finite.
    """
    for name, module in model.named_modules():
        if not name.endswith(("weight_quantizer", "input_quantizer")) or module.amax is None:
            continue
        largest = float(module.amax.max())
        if not math.isfinite(largest):
            raise ValueError(f"the largest value of {name.removesuffix('_quantizer')} is {largest}")
        if largest == 0:
            module.amax = module.amax + module.maxbound


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
