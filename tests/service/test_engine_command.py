"""`doherty engine`: profiles, preparation that can be killed at any stage, and verification on a GPU."""

import json
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from doherty.cli import QUESTIONS
from doherty_engine import engine_profiles
from doherty_engine_cli._report import REFERENCE
from support.gpu import (
    GIB,
    H100,
    calibration_set,
    clean_environment,
    environment,
    options,
    recorded,
    write_model,
    write_safetensors,
)
from support.hub import COMMIT, MODEL, Hub, running_hub
from support.server import start_server
from support.vllm import write_head

COMMAND = (sys.executable, "-m", "doherty.cli", "engine")
LITTLE, BIG = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
SMALL = {**H100, "memory": 10 * GIB}


class Desk:
    """Runs commands with the fakes, a hub, and separate folders."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub = hub
        self.folder = folder
        self.engines = folder / "engines"
        self.record = folder / "record.jsonl"

    def begin(self, *arguments: str, **scenario: Any) -> "subprocess.Popen[str]":
        scenario.setdefault("record", str(self.record))
        variables = environment(**scenario) | self.hub.variables(self.folder / "home")
        return subprocess.Popen(
            [*COMMAND, *arguments],
            env=clean_environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **scenario: Any) -> "subprocess.CompletedProcess[str]":
        process = self.begin(*arguments, **scenario)
        out, err = process.communicate()
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def prepare(self, *values: str, **scenario: Any) -> "subprocess.CompletedProcess[str]":
        return self.run(*self.preparing(*values), **scenario)

    def preparing(self, *values: str) -> tuple[str, ...]:
        return ("prepare", "--model", MODEL, "--profile", "fast", *options(f"engine_cache={self.engines}", *values))

    def kept(self) -> list[Path]:
        """Returns the folders of engines, including hidden ones."""
        return [path for path in self.engines.iterdir() if path.is_dir()] if self.engines.exists() else []


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    model = write_model(tmp_path / "hub").path
    write_safetensors(model / BIG, 2_000_000)
    (model / "pytorch_model.bin").write_bytes(b"the same again")
    with running_hub(model, "cnn_dailymail") as hub:
        yield Desk(hub, tmp_path)


def last_line(done: "subprocess.CompletedProcess[str]") -> str:
    """Returns the last line of the output, which must be a sentence."""
    return done.stderr.strip().splitlines()[-1]


def assert_whole(desk: Desk) -> None:
    """Checks that there is exactly one engine, and that it can be loaded."""
    (engine,) = desk.kept()
    manifest = json.loads((engine / "doherty.json").read_text())
    assert (manifest["model"], manifest["revision"], manifest["tensorrt_llm"]) == (MODEL, COMMIT, "1.2.1")
    assert (manifest["gpu"], manifest["tensor_parallel_size"]) == (H100["name"], 1)
    assert manifest["configuration"]["lookahead"] == [8, 6, 8]
    assert {path.name for path in engine.iterdir()} == {*manifest["files"], "doherty.json"}
    again = desk.prepare()
    assert (again.returncode, again.stdout.startswith("The engine already exists: ")) == (0, True), again.stderr


@pytest.mark.parametrize("profile", engine_profiles("trtllm"))
def test_a_profile_is_shown_as_toml(profile: str, desk: Desk) -> None:
    shown = desk.run("show", profile)
    as_json = desk.run("show", profile, "--json")
    assert tomllib.loads(shown.stdout) == json.loads(as_json.stdout)
    assert json.loads(as_json.stdout) == json.loads(json.dumps(engine_profiles("trtllm")[profile]))


def test_showing_an_unknown_profile_fails(desk: Desk) -> None:
    assert desk.run("show").stdout.split() == list(engine_profiles("trtllm"))
    assert json.loads(desk.run("show", "--json").stdout) == list(engine_profiles("trtllm"))
    assert "it has fast, slow, interactive, throughput" in desk.run("show", "quick").stderr
    assert "has no profiles" in desk.run("show", "--engine", "synthetic").stderr
    assert "needs no preparation" in desk.run("prepare", "--engine", "llamacpp").stderr


def test_prepare_downloads_checks_and_builds(desk: Desk) -> None:
    done = desk.prepare()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The engine is built: ")
    for stage in (
        "GiB on each GPU",
        f"fetching {MODEL} {COMMIT}",
        "2 files have the hub's digests",
        "quantizing",
        "saving",
    ):
        assert stage in done.stderr
    fetched = {name for method, name, _ in desk.hub.requested_files if method == "GET"}
    assert {"config.json", "tokenizer.json", BIG} <= fetched
    assert "pytorch_model.bin" not in fetched
    assert_whole(desk)
    assert sum("constructor" in line for line in recorded(desk.record)) == 1
    home = desk.hub.variables(desk.folder / "home") | {"HF_HUB_OFFLINE": "1"}
    serve = ("-o", f"engine_cache={desk.engines}", "--model", MODEL)
    with start_server("--engine", "trtllm", *serve, **environment() | home) as server:
        assert "building" not in json.dumps(server.log)


def test_downloaded_files_are_kept_if_the_command_is_killed(desk: Desk) -> None:
    desk.hub.stalls_in = BIG
    process = desk.begin(*desk.preparing())
    assert desk.hub.stalled.wait(30)
    while not list(desk.folder.glob(f"home/hub/*/snapshots/{COMMIT}/{LITTLE}")):
        pass  # the other files are downloaded at the same time
    process.kill()
    process.communicate()
    desk.hub.stalls_in = ""
    requests_before = len(desk.hub.requested_files)
    done = desk.prepare()
    assert done.returncode == 0, done.stderr
    again = [
        name
        for method, name, _ in desk.hub.requested_files[requests_before:]
        if method == "GET" and name.endswith(".safetensors")
    ]
    assert again == [BIG]  # the client of the hub decides whether the first half is downloaded again
    assert_whole(desk)


@pytest.mark.parametrize("stage", ["calibrate", "build", "save"])
def test_a_build_starts_again_after_the_command_was_killed(desk: Desk, stage: str) -> None:
    assert desk.prepare(kill_at=stage).returncode == -signal.SIGKILL
    assert not [path for path in desk.kept() if not path.name.startswith(".")]
    done = desk.prepare()
    assert done.returncode == 0, done.stderr
    assert_whole(desk)


def test_an_interrupted_build_leaves_nothing(desk: Desk) -> None:
    process = desk.begin(*desk.preparing(), build_seconds=60)
    assert process.stderr is not None
    assert any("quantizing" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode != 0
    assert desk.kept() == []


def test_a_build_that_fails_says_why_and_leaves_nothing(desk: Desk) -> None:
    done = desk.prepare(fail_at="build")
    assert done.returncode == 2
    assert "The engine cannot be built (RuntimeError: CUDA error: out of memory while it did build)" in last_line(done)
    assert desk.kept() == []


def test_a_broken_engine_is_moved_aside_and_built_again(desk: Desk) -> None:
    desk.prepare()
    (engine,) = desk.kept()
    (engine / "rank0.engine").unlink()
    assert desk.prepare().returncode == 0
    assert sorted(path.name for path in desk.kept()) == [engine.name, f"{engine.name}.broken-1"]


def test_two_commands_for_the_same_engine_build_it_once(desk: Desk) -> None:
    first, second = (desk.begin(*desk.preparing(), build_seconds=5) for _ in range(2))
    outputs = [process.communicate() for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert "another process builds this engine" in outputs[0][1] + outputs[1][1]
    assert sum("constructor" in line for line in recorded(desk.record)) == 1
    assert_whole(desk)


def test_a_preparation_that_cannot_succeed_is_refused_before_the_download(desk: Desk) -> None:
    small = desk.prepare(cards=[SMALL])
    assert (small.returncode, "use a larger card" in last_line(small)) == (2, True)
    desk.hub.datasets = ()
    offline = desk.prepare()
    assert offline.returncode == 2
    assert "The calibration dataset cnn_dailymail is neither on the hub" in last_line(offline)
    assert BIG not in {name for _, name, _ in desk.hub.requested_files}
    calibrated = desk.prepare(f"calib_dataset={calibration_set(desk.folder / 'texts')}")
    assert calibrated.returncode == 0, calibrated.stderr


def test_a_cached_calibration_dataset_is_sufficient(desk: Desk) -> None:
    desk.hub.datasets = ()
    (desk.folder / "home" / "datasets" / "abisee___cnn_dailymail").mkdir(parents=True)
    assert desk.prepare().returncode == 0


def test_weights_that_differ_from_the_hub_are_refused(desk: Desk) -> None:
    desk.hub.digests[BIG] = "0" * 64
    done = desk.prepare()
    assert (done.returncode, " differs from the file on the hub; delete " in last_line(done)) == (2, True)


def test_a_checkpoint_needs_no_engine(desk: Desk) -> None:
    done = desk.run("prepare", "--model", MODEL, "--profile", "interactive")
    assert (done.returncode, done.stdout.startswith("The model is downloaded: ")) == (0, True)
    assert recorded(desk.record) == []


def test_the_published_latencies_equal_those_of_the_reference() -> None:
    assert REFERENCE["fast"] == (0.21117, 0.88327)
    assert REFERENCE["slow"] == (1.14088, 2.27424)


def test_verify_runs_all_stages(desk: Desk) -> None:
    model = write_model(desk.folder / "model").path
    flags = options(f"engine_cache={desk.engines}", f"calib_dataset={calibration_set(desk.folder / 'texts')}")
    output = desk.folder / "out"
    done = desk.run(
        "verify", "--model", str(model), *flags, "--output", str(output), tokens_per_second=2000, fp8_loss=0.05
    )
    assert done.returncode == 1, done.stderr
    report = json.loads((output / "report.json").read_text())
    assert [check["problem"] for check in report["contract"] if check["problem"]] == []
    fast, slow = report["profiles"]
    for run in (fast, slow):
        latencies = sorted(answer["time_to_last_token"] for answer in run["answers"])
        assert [answer["question"] for answer in run["answers"]] == list(QUESTIONS)
        assert (run["p50"], run["p90"]) == (latencies[4], latencies[8])
        assert [stream["streams"] for stream in run["streams"]] == [1, 8, 32]
    assert [(cancel["logprobs"], cancel["problem"]) for cancel in (*fast["cancels"], *slow["cancels"])] == [
        (False, ""),
        (False, ""),
        (True, ""),
    ]
    assert [(run["longest"]["tokens"], run["longest"]["problem"]) for run in (fast, slow)] == [(8112, ""), (8191, "")]
    reference, effective = report["build"]["reference"], flat(report["build"]["effective"])
    assert reference.pop("speculative_decoding_mode") == "LOOKAHEAD_DECODING"  # a number, once it is written
    assert reference.items() <= effective.items()
    assert "| max_num_tokens | 16384 | 16384 |" in done.stdout
    assert fast["acceptance"] == []
    assert report["quality"]["loss"] == pytest.approx(0.0513, abs=0.001)
    assert report["quality"]["agreement"] == pytest.approx(0.96, abs=0.01)
    assert len(report["problems"]) == 2
    assert "211.2" in done.stdout
    assert "2274.2" in done.stdout
    assert "FP8 makes the perplexity 5.1% worse" in done.stdout
    # Before the file of engines: fast, slow, and the two that return their logits.
    assert len(desk.kept()) == 4


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested fields; the keys are paths."""
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return leaves


def test_vllm_is_verified_with_three_profiles(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    head = write_head(model.path, tmp_path / "head")
    checkpoint = write_model(tmp_path / "checkpoint", quantization_config={"quant_method": "modelopt"})
    output = tmp_path / "out"
    flags = ("--model", str(model.path), *options(f"draft={head}"), "--checkpoint", str(checkpoint.path))
    done = subprocess.run(
        [*COMMAND, "verify", "--engine", "vllm", *flags, "--output", str(output)],
        env=clean_environment(**environment(), FAKE_VLLM_FP8_LOSS="0.01"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    report = json.loads((output / "report.json").read_text())
    slow, fast, fastest = report["profiles"]
    assert [run["model"] for run in (slow, fast, fastest)] == ["model", "checkpoint", "checkpoint"]
    for run in (slow, fast, fastest):
        assert (len(run["answers"]), run["longest"], run["cancels"][0]["problem"]) == (
            10,
            {"tokens": 8191, "problem": ""},
            "",
        )
        assert run["within"] == sum(answer["time_to_last_token"] <= 0.4 for answer in run["answers"]) / 10
    assert (slow["tokens_a_step"], fast["acceptance"]) == (None, [])
    assert fastest["tokens_a_step"] == pytest.approx(1 + sum(fastest["acceptance"]))
    assert len(fastest["acceptance"]) == 3
    assert report["quality"]["loss"] == pytest.approx(0.01005, abs=0.0001)
    # Every 25th token differs in FP8, which is more than 2 %.
    assert [problem.partition(" is the same")[0] for problem in report["problems"]] == [
        "with FP8 the most probable token"
    ]
    assert "| fastest | " in done.stdout
    assert "883.3" in done.stdout


def test_verify_can_check_only_the_contract(desk: Desk) -> None:
    done = desk.run("verify", "--contract-only", "--output", str(desk.folder / "out"))
    assert done.returncode == 0, done.stderr
    assert "no problems found" in done.stdout
    as_json = desk.run("verify", "--contract-only", "--output", str(desk.folder / "out"), "--json")
    assert json.loads(as_json.stdout)["problems"] == []
    with_profile = desk.run("verify", "--profile", "fast")
    assert "does not accept --profile" in with_profile.stderr


def test_verify_needs_the_package(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "verify", "--output", str(tmp_path)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert last_line(done).startswith("TensorRT-LLM is not installed")


def test_verify_says_in_one_line_that_the_engine_died(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    done = subprocess.run(
        [*COMMAND, "verify", "--engine", "vllm", "--model", str(model.path), "--output", str(tmp_path / "out")],
        env=clean_environment(**environment(), FAKE_VLLM_DIE_AFTER_STEPS="20"),
        capture_output=True,
        text=True,
        check=False,
    )
    *_, last = done.stderr.splitlines()
    assert done.returncode == 2, done.stderr
    assert "the engine failed during the request" in last
