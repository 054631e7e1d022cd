"""Measures what other configurations gain at one stream, without a server: `python benchmarks/gpu/tries.py NAME...`.

The named engines start at the same time and are measured in turn: the time per token at one stream, greedy and sampled,
and tokens per second at 64 streams. NOTES.md has the predictions and the results.
"""

import argparse
import asyncio
import json
from dataclasses import asdict
from pathlib import Path

from _figures import Figures, figures
from _generators import Generators
from _records import Order
from _shape import write_shape
from _sides import engine_options, launch, running, save, stop, wait_until_ready
from _static_fp8 import quantization_config, write_checkpoint

TOKENS = 170
ROUNDS = 2
Options = dict[str, str]

SPLITS: dict[str, object] = {"attention_config": {"flash_attn_max_num_splits_for_cuda_graph": 1}}
CHECKPOINTS = {"plain": None, "static": False, "static-head": True, "written": True}
"""The checkpoints: whether there are static scales, and whether they are for lm_head, too."""
TRIES: dict[str, tuple[str, dict[str, object]]] = {
    "fast": ("plain", {}),
    "balanced": ("plain", {"performance_mode": "balanced"}),
    "splits": ("plain", SPLITS),
    "cublas": ("plain", {"linear_backend": "torch"}),
    "v1": ("plain", {}),
    "static": ("static", {}),
    "static-head": ("static-head", {}),
    "static-head-splits": ("static-head", SPLITS),
    "static-head-cublas": ("static-head", {"linear_backend": "torch"}),
    "static-head-kv": ("static-head", {"kv_cache_dtype": "fp8"}),
    "written": ("written", {}),
}
"""The checkpoint, and the fields of AsyncEngineArgs; "written" has its weights on disk, the others make them up."""
VARIABLES = {"v1": {"VLLM_USE_V2_MODEL_RUNNER": "0"}}
"""Environment variables."""


def options(name: str, state: Path) -> Options:
    """Returns the options of our engine for a configuration, after writing its folder."""
    checkpoint, arguments = TRIES[name]
    folder = state / f"shape-{checkpoint}"
    lm_head = CHECKPOINTS[checkpoint]
    if not folder.exists():
        if checkpoint == "written":
            write_checkpoint(folder, lm_head=bool(lm_head))
        elif lm_head is None:
            write_shape(folder)
        else:
            write_shape(folder, quantization_config=quantization_config(lm_head=lm_head))
    base = engine_options("vllm", folder)
    if checkpoint == "written":
        del base["load_format"]
    return base | {"engine_args": json.dumps(json.loads(base["engine_args"]) | arguments)}


def start_all(names: list[str], state: Path) -> None:
    """Starts the engines at the same time. They keep running."""
    launches = [
        launch(name, "inprocess", "vllm", options(name, state), state / name, **VARIABLES.get(name, {}))
        for name in names
    ]
    for name, side in zip(names, wait_until_ready(launches), strict=True):
        save(state / name, [side])


async def measure(names: list[str], state: Path) -> dict[str, dict[str, Figures]]:
    """Measures the engines in turn."""
    sides = {name: side for name in names for side in running(state / name)}
    orders = {
        "greedy": Order("engine", "", streams=1, requests=4, tokens=TOKENS),
        "sampled": Order("engine", "", streams=1, requests=4, tokens=TOKENS, temperature=0.8, top_p=0.95),
        "64 streams": Order("engine", "", streams=64, requests=64, tokens=TOKENS),
    }
    results: dict[str, dict[str, Figures]] = {name: {} for name in names}
    async with Generators() as generators:
        for load, order in orders.items():
            parts = {name: [await generators.measure(sides[name], order)] for name in names}
            for name in reversed(names):
                parts[name].append(await generators.measure(sides[name], order))
            for name in names:
                results[name][load] = figures(name, parts[name], TOKENS)
    return results


def main() -> None:
    """Runs the named steps; by default all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(TRIES))
    parser.add_argument("--step", choices=("start", "measure", "stop"), action="append")
    parser.add_argument("--state", type=Path, default=Path("/tmp/doherty-gpu"))  # noqa: S108 - not secret
    parser.add_argument("--out", type=Path, default=Path())
    arguments = parser.parse_args()
    names, state, steps = arguments.names, arguments.state, arguments.step or ("start", "measure", "stop")
    if "start" in steps:
        start_all(names, state)
    if "measure" in steps:
        tell(asyncio.run(measure(names, state)), arguments.out)
    if "stop" in steps:
        for name in names:
            stop(running(state / name))


def tell(results: dict[str, dict[str, Figures]], out: Path) -> None:
    """Prints the table, and writes all figures."""
    content = {name: {load: asdict(row) for load, row in rows.items()} for name, rows in results.items()}
    (out / f"tries-{'-'.join(results)}.json").write_text(json.dumps(content))
    print("| try | greedy: TPOT p50, ms | TTFT p50 | sampled: TPOT p50 | 64 streams: tokens/s |\n|---|---|---|---|---|")
    for name, rows in results.items():
        greedy, sampled, many = (rows[load] for load in ("greedy", "sampled", "64 streams"))
        print(
            f"| {name} | {greedy.tpot[0]:.3f} | {greedy.ttft[0]:.1f} | {sampled.tpot[0]:.3f} "
            f"| {many.tokens_per_second:,.0f} |"
        )


if __name__ == "__main__":
    main()
