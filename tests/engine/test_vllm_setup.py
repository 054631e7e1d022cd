"""The start, options and setup errors of the vLLM engine."""

import asyncio
import json
import multiprocessing
import re
import runpy
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from tokenizers import Tokenizer, models

from doherty_engine import Engine, EngineSetupError, create_engine, engine_options
from doherty_engine.vllm import Options, profiles
from doherty_engine.vllm._load import _keep_ctrl_c_from_children
from doherty_extras import install_command
from support.hugging_face import write_folder, write_llama3, write_lora
from support.server import start_server
from support.vllm import FAKE_PATH, fake_vllm, until, vllm_lab
from support.wire import connect, failure_of


async def start(**options: str) -> Engine:
    engine = create_engine("vllm", options)
    await engine.start(lambda _: None)
    return engine


async def arguments(folder: Path, **options: str) -> dict[str, Any]:
    """Returns the arguments of vLLM, without those that are always the same."""
    async with vllm_lab(folder, **options) as vllm:
        given = dict(vllm.llm.vllm_config.arguments)
        assert vllm.llm.usage_context == "OPENAI_API_SERVER"
    assert given.pop("model") == str(folder)
    assert given.pop("disable_log_stats")
    assert given.pop("structured_outputs_config").backend == "guidance"
    return given


def test_importing_the_engine_loads_no_library() -> None:
    code = "import sys, doherty_engine.vllm; sys.exit(bool({'vllm', 'transformers', 'llguidance'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_profiles_set_options() -> None:
    assert set(profiles()) == {"fast", "fastest", "slow", "throughput"}
    for values in profiles().values():
        assert set(values) <= set(engine_options("vllm"))
    assert Options().profile == "fast"
    profiles()["fast"]["slots"] = 1  # a copy
    assert profiles()["fast"]["slots"] == 64


def test_the_page_on_vllm_describes_every_option_and_profile() -> None:
    page = (Path(__file__).parents[2] / "docs" / "vllm.md").read_text()
    rows = re.findall(r"^\| `(\w+)` (?:\(default\) )?\| ([^|]+) \|", page, re.MULTILINE)
    for name, text in engine_options("vllm").items():
        assert (name, text) in rows
    for name, values in profiles().items():
        documented = dict(rows)[name].strip("`").split()
        assert documented == [f"{option}={value}" for option, value in values.items()]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"quantization": "fp8", "performance_mode": "interactivity", "max_num_seqs": 64}),
        ({"profile": "slow"}, {"dtype": "bfloat16", "max_num_seqs": 64}),
        (
            {"profile": "throughput"},
            {"quantization": "fp8", "performance_mode": "throughput", "max_num_seqs": 256},
        ),
        (
            {"profile": "slow", "slots": "8", "performance_mode": "balanced", "dtype": "float16"},
            {"dtype": "float16", "max_num_seqs": 8, "performance_mode": "balanced"},
        ),
        (
            {
                "quantization": "none",
                "load_format": "dummy",
                "attention_backend": "FLASH_ATTN",
                "max_model_len": "4096",
                "max_num_batched_tokens": "8192",
                "gpu_memory_utilization": "0.5",
                "tensor_parallel_size": "2",
                "prefix_caching": "off",
                "skip_tokenizer_init": "on",
                "ngram": "5",
                "ngram_window": "3",
                "engine_args": '{"kv_cache_dtype": "fp8", "max_num_seqs": 32}',
            },
            {
                "performance_mode": "interactivity",
                "max_num_seqs": 32,
                "load_format": "dummy",
                "attention_backend": "FLASH_ATTN",
                "max_model_len": 4096,
                "max_num_batched_tokens": 8192,
                "gpu_memory_utilization": 0.5,
                "tensor_parallel_size": 2,
                "enable_prefix_caching": False,
                "skip_tokenizer_init": True,
                "speculative_config": {
                    "method": "ngram",
                    "num_speculative_tokens": 5,
                    "prompt_lookup_min": 1,
                    "prompt_lookup_max": 3,
                },
                "kv_cache_dtype": "fp8",
            },
        ),
    ],
)
async def test_options_become_arguments(tmp_path: Path, options: dict[str, str], expected: dict[str, Any]) -> None:
    assert await arguments(tmp_path, **options) == expected


async def test_the_quantization_comes_from_the_checkpoint(tmp_path: Path) -> None:
    write_llama3(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "fp8"}}))
    assert "quantization" not in await arguments(tmp_path)


async def test_adapters_set_their_rank(tmp_path: Path) -> None:
    paths = [write_lora(tmp_path / str(rank), rank) for rank in (4, 100)]
    given = await arguments(tmp_path / "model", adapters=f"a={paths[0]},b={paths[1]}")
    assert {name: given[name] for name in ("enable_lora", "max_loras", "max_lora_rank")} == {
        "enable_lora": True,
        "max_loras": 2,
        "max_lora_rank": 128,
    }


async def test_missing_capabilities_are_not_features(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(64)}, unk_token="w0"))  # noqa: S106
    config = {"vocab_size": 64, "max_position_embeddings": 512}
    write_folder(tmp_path / "words", words, config=config)
    async with vllm_lab(tmp_path / "words") as vllm:
        features = vllm.lab.engine.info().features
    assert not {name for name in features if name.startswith("constraint.")}
    assert not {"messages", "prompt", "adapter"} & features
    assert {"raw_text", "token_ids", "sampling.min_p"} <= features
    async with vllm_lab(tmp_path / "llama3", skip_tokenizer_init="on") as vllm:
        features = vllm.lab.engine.info().features
    assert not {name for name in features if name.startswith("constraint.")}
    assert "messages" in features


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "The engine vllm has no default model; name a folder"),
        ({"model": "/no/such"}, "There is no model folder /no/such; give the path of one"),
        (
            {"max_model_len": "100000"},
            r"vLLM cannot start \(1 validation error for ModelConfig Value error, User-speci",
        ),
        ({"quantization": "magic"}, r"vLLM cannot start \(1 validation error"),
        ({"engine_args": '{"max_seqs": 1}'}, r"vLLM cannot start \(AsyncEngineArgs.* unexpected keyword argument"),
        ({"adapters": "a=/no/such"}, "There is no model folder /no/such"),
        ({"adapters": "a=/"}, r"has no adapter_config.json with a rank"),
    ],
)
async def test_setup_errors_are_reported_in_one_sentence(
    tmp_path: Path, options: dict[str, str], sentence: str
) -> None:
    model = {} if not options else {"model": str(write_llama3(tmp_path).path)}
    with fake_vllm(), pytest.raises(EngineSetupError, match=sentence) as raised:
        await start(**{**model, **options})
    assert "\n" not in str(raised.value)


async def test_a_rank_that_is_too_large_is_refused(tmp_path: Path) -> None:
    adapter = write_lora(tmp_path / "large", rank=1024)
    with fake_vllm(), pytest.raises(EngineSetupError, match="An adapter has rank 1024, and vLLM takes at most 512"):
        await start(model=str(write_llama3(tmp_path / "model").path), adapters=f"a={adapter}")


async def test_an_adapter_that_vllm_cannot_load_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = write_lora(tmp_path / "poet")
    with fake_vllm() as fake:

        async def add_lora(_: object, lora_request: Any) -> bool:
            raise RuntimeError(f"Loading lora {lora_request.lora_name} failed: no weights")

        monkeypatch.setattr(fake.AsyncLLM, "add_lora", add_lora)
        with pytest.raises(EngineSetupError, match=r"The adapter poet cannot be loaded \(Loading lora poet failed"):
            await start(model=str(write_llama3(tmp_path / "model").path), adapters=f"poet={adapter}")
        assert fake.ENGINES[-1].errored  # it was released


@pytest.mark.parametrize(
    ("option", "text", "reason"),
    [
        ("profile", "quick", "it must be one of fast, fastest, slow, throughput"),
        ("slots", "0", "it must be at least 1"),
        ("gpu_memory_utilization", "90", "it must be above 0 and at most 1"),
        ("ngram", "-1", "it must be 0 or above"),
        ("draft_tokens", "0", "it must be at least 1"),
        ("draft_schedule", "8", "it must be auto, or STREAMS:DRAFTS separated by commas"),
        ("draft_schedule", "8:x", "it must be auto"),
        ("draft_schedule", "8:3,8:2", "must be 1 or above, and increase"),
        ("draft_schedule", "0:3", "must be 1 or above, and increase"),
        ("draft_schedule", "8:-1", "must be 0 or above"),
        ("adapters", "a", "it must be NAME=PATH"),
        ("adapters", "a=b,a=c", "each name once"),
        ("engine_args", "[]", "it must be a JSON object"),
        ("engine_args", "{", "Expecting property name"),
    ],
)
def test_an_invalid_value_is_refused(option: str, text: str, reason: str) -> None:
    with pytest.raises(EngineSetupError, match=reason):
        create_engine("vllm", {option: text})


async def test_without_the_package_the_extra_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineSetupError, match=r"needs the package vllm; run `.* -m pip install 'doherty\[vllm\]'`"):
        await start(model=str(tmp_path))


async def test_an_unsupported_version_of_vllm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_vllm():
        monkeypatch.setitem(sys.modules, "vllm.usage.usage_lib", None)
        with pytest.raises(EngineSetupError, match=r"not a version that this engine supports \(.*usage_lib"):
            await start()


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({}, f"The engine vllm needs the package vllm; run `{install_command('vllm')}`.\n"),
        (
            {"PYTHONPATH": FAKE_PATH, "FAKE_VLLM_NO_GPU": "1"},
            (
                "The engine vllm finds no GPU here; check that nvidia-smi shows one, start Docker with `--gpus all`, "
                "or choose `--engine llamacpp`.\n"
            ),
        ),
        (
            {"PYTHONPATH": FAKE_PATH, "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"},  # that torch is missing
            'There is no model folder /no/such; give the path of one, or a model on the hub as "org/name".\n',
        ),
    ],
)
def test_serve_ends_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "doherty_service", "--engine", "vllm", "--model", "/no/such"]
    ended = subprocess.run([*command, "--listen", "127.0.0.1:0"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert [line for line in ended.stderr.splitlines(keepends=True) if not line.startswith("{")] == [sentence]


async def test_loading_can_be_interrupted_by_ending_vllms_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM_HANGS_IN_LOAD", "1")
    with fake_vllm():
        starting = asyncio.create_task(start(model=str(write_llama3(tmp_path).path)))
        await until(lambda: bool(multiprocessing.active_children()))
        starting.cancel()
        await asyncio.wait([starting])
    assert starting.cancelled()
    assert not multiprocessing.active_children()


def test_ctrl_c_does_not_reach_vllms_processes() -> None:
    masks: list[set[Any]] = []

    def look() -> None:
        _keep_ctrl_c_from_children()
        masks.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, ())))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert masks == [{signal.SIGINT}]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize("module", ["doherty_service", "doherty.cli"])
def test_a_process_of_vllm_that_imports_the_program_starts_no_server(module: str) -> None:
    runpy.run_module(module, run_name="__mp_main__")


def test_a_server_whose_vllm_dies_reports_it_and_restarts_it(tmp_path: Path) -> None:
    model = write_llama3(tmp_path).path
    flags = ("--engine", "vllm", "--model", str(model))
    with start_server(*flags, PYTHONPATH=FAKE_PATH, FAKE_VLLM_DIE_AFTER_STEPS="60") as server:
        with connect(server.target) as caller:
            stopping = {"max_output_tokens": 500, "ignore_eos": True}
            failure = failure_of(lambda: caller.generate(prompt="Go on.", stopping=stopping))
        assert failure.code is grpc.StatusCode.UNAVAILABLE
        assert "its own log says why" in str(server.wait_for("engine_failed")["reason"])
        server.read()
        server.wait_for("loaded")
