"""The program that makes an FP8 checkpoint with static scales, with NVIDIA's ModelOpt on one GPU.

It is a separate process, so that all GPU memory is freed at its end, and the libraries' prints do not mix with the
command's output. It reads one line of JSON (`model`, `folder`, `sequences`, `lm_head`, `device`) and writes its
progress as lines of JSON. It exits when its standard input ends, and thus whenever the command ends.
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
"""E4M3 with one scale per tensor, as in ModelOpt's FP8_DEFAULT_CFG, which excludes lm_head."""
_REPORT_EVERY = 8


def main() -> None:
    """Makes the checkpoint."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # redirects what libraries print to standard error

    def say(**message: str) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        quantize(job, say)
    except Exception as error:  # noqa: BLE001  the exceptions of ModelOpt, transformers and CUDA have no common base
        say(error=f"{type(error).__name__}: {first_line(error)}")
    os._exit(0)  # at once, before `_end_with_input` sees the end of the input


def quantize(job: dict[str, Any], say: Any) -> None:
    """Loads, calibrates and writes the model. Reports its progress with `say`."""
    say(doing="importing ModelOpt")
    quantization = import_module("modelopt.torch.quantization")
    export = import_module("modelopt.torch.export")
    torch, transformers = import_module("torch"), import_module("transformers")
    say(doing="loading the model")
    model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype="auto").to(job["device"]).eval()
    sequences = job["sequences"]

    def calibrate(quantizing: Any) -> None:
        with torch.inference_mode():
            for number, ids in enumerate(sequences):
                if number % _REPORT_EVERY == 0:
                    say(doing=f"calibrating: text {number + 1} of {len(sequences)}")
                quantizing(input_ids=torch.tensor([ids], device=job["device"]), use_cache=False)

    quantization.quantize(model, configuration(quantization, lm_head=job["lm_head"]), forward_loop=calibrate)
    check_ranges(model)
    say(doing="writing the checkpoint")
    export.export_hf_checkpoint(model, export_dir=job["folder"])


def configuration(quantization: Any, *, lm_head: bool) -> dict[str, Any]:
    """ModelOpt's FP8 configuration. With `lm_head`, it also includes lm_head."""
    config: dict[str, Any] = copy.deepcopy(quantization.FP8_DEFAULT_CFG)
    if lm_head:
        config["quant_cfg"] += [
            {"quantizer_name": f"*lm_head*{kind}_quantizer", "enable": True, "cfg": dict(_FP8)}
            for kind in ("weight", "input")
        ]
    return config


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
