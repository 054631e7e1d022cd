"""`doherty engine prepare --engine vllm` creates an FP8 checkpoint with static scales, completely or not at all."""

import json
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from doherty_extras import install_command
from support.gpu import A100, GIB, H100, clean_environment, environment, options, recorded, write_model
from support.vllm import vllm_lab

COMMAND = (sys.executable, "-m", "doherty.cli", "engine", "prepare", "--engine", "vllm")


class Bench:
    """A model, and the folder of its checkpoints."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.model = write_model(folder / "model", **config).path
        self.made = folder / "checkpoints"
        self.record = folder / "record.jsonl"

    def begin(self, *values: str, **scenario: Any) -> "subprocess.Popen[str]":
        assignments = (f"checkpoint_cache={self.made}", *values)
        return subprocess.Popen(
            [*COMMAND, "--model", str(self.model), *options(*assignments)],
            env=clean_environment(**environment(record=str(self.record), **scenario)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, **scenario: Any) -> "subprocess.CompletedProcess[str]":
        process = self.begin(**scenario)
        out, err = process.communicate()
        return subprocess.CompletedProcess((), process.returncode, out, err)

    def refused(self, **scenario: Any) -> str:
        """Returns the error message of a preparation that is not possible."""
        done = self.run(**scenario)
        assert done.returncode == 2, done.stderr
        assert self.kept() == []
        return done.stderr.strip().splitlines()[-1]

    def kept(self) -> list[Path]:
        return [path for path in self.made.iterdir() if path.is_dir()] if self.made.exists() else []


async def test_a_checkpoint_is_created_once_and_served(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    done = bench.run()
    assert done.returncode == 0, done.stderr
    for stage in ("FP8 with static scales, lm_head too", "GiB on the GPU", "GB of weights", "text 9 of 17", "writing"):
        assert stage in done.stderr
    (checkpoint,) = bench.kept()
    assert f"The checkpoint is made: {checkpoint}\nServe it with" in done.stdout
    assert json.loads((checkpoint / "hf_quant_config.json").read_text())["quantization"]["exclude_modules"] == [
        "model.embed_tokens"
    ]
    again = bench.run()
    assert again.stdout.startswith(f"The checkpoint already exists: {checkpoint}")
    assert len(recorded(bench.record)) == 1
    async with vllm_lab(checkpoint) as vllm:
        assert vllm.lab.engine.info().model == checkpoint.name
        assert (await vllm.ask()).finish.output_tokens


def test_a_tied_lm_head_is_not_quantized(tmp_path: Path) -> None:
    bench = Bench(tmp_path, tie_word_embeddings=True)
    done = bench.run()
    assert done.returncode == 0, done.stderr
    assert "lm_head too" not in done.stderr
    (checkpoint,) = bench.kept()
    assert "lm_head" in (checkpoint / "hf_quant_config.json").read_text()


@pytest.mark.parametrize(("largest_weight", "scale"), [(224.0, 0.5), (0.0, 1.0)])
def test_weights_that_are_all_zero_get_a_scale(tmp_path: Path, largest_weight: float, scale: float) -> None:
    bench = Bench(tmp_path)
    assert bench.run(largest_weight=largest_weight).returncode == 0
    (checkpoint,) = bench.kept()
    weights = (checkpoint / "model.safetensors").read_bytes()
    assert struct.unpack("<f", weights[-4:]) == (scale,)


def test_a_range_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    message = bench.refused(largest_weight=float("nan"))
    assert "the largest value of model.layers.0.mlp.down_proj.weight is nan" in message


@pytest.mark.parametrize("stage", ["calibrate", "save"])
def test_an_interrupted_preparation_leaves_nothing(tmp_path: Path, stage: str) -> None:
    bench = Bench(tmp_path)
    assert "cannot be made (it ended with -9)" in bench.refused(kill_at=stage)
    assert "(RuntimeError: CUDA error: out of memory" in bench.refused(fail_at=stage)
    assert bench.run().returncode == 0
    assert len(bench.kept()) == 1


def test_child_processes_end_when_the_command_is_killed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    process = bench.begin(build_seconds=60)
    assert process.stderr is not None
    assert any("calibrating" in line for line in process.stderr)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (program,) = {line["process"] for line in recorded(bench.record)}
    while _runs(program):
        pass
    assert bench.run().returncode == 0
    assert len(bench.kept()) == 1


def _runs(process: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_a_preparation_that_cannot_succeed_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert "use a larger card" in bench.refused(cards=[{**H100, "memory": 10 * GIB}])
    assert "FP8 needs a GPU of the generation Ada" in bench.refused(cards=[A100])
    config = json.loads((bench.model / "config.json").read_text())
    (bench.model / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    assert "is quantized already; serve it as it is" in bench.refused()
    assert recorded(bench.record) == []


def test_a_missing_package_names_the_install_command(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model").path
    done = subprocess.run(
        [*COMMAND, "--model", str(model)], env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"run `{install_command('quantize')}` beside vLLM" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
