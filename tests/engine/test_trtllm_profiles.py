"""The profiles, and the arguments that they pass to TensorRT-LLM, compared with the reference."""

import asyncio
import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from doherty_engine import (
    Conversation,
    EngineRequest,
    EngineSetupError,
    Message,
    Role,
    Sampling,
    SamplingDefaults,
    Stopping,
    create_engine,
    engine_options,
    engine_profiles,
)
from support.engines import running
from support.gpu import H100, L4, FakeGpu, calibration_set, write_model
from support.trtllm import BASE
from support.vllm import write_head

LOOKAHEAD = {
    "": "LookaheadDecodingConfig",
    "max_window_size": 8,
    "max_ngram_size": 6,
    "max_verification_set_size": 8,
}
REFERENCE: dict[str, dict[str, Any]] = {
    "fast": {
        "tensor_parallel_size": 1,
        "quant_config": {"": "QuantConfig", "quant_algo": "FP8"},
        "calib_config": {
            "": "CalibConfig",
            "calib_batches": 512,
            "calib_batch_size": 1,
            "calib_max_seq_length": 2048,
            "tokenizer_max_seq_length": 4096,
        },
        "build_config": {
            "": "BuildConfig",
            "plugin_config": {
                "": "PluginConfig",
                "multiple_profiles": True,
                "paged_kv_cache": True,
                "low_latency_gemm_swiglu_plugin": "fp8",
                "low_latency_gemm_plugin": "fp8",
            },
            "speculative_decoding_mode": "LOOKAHEAD_DECODING",
            "max_input_len": 8192,
            "max_num_tokens": 16384,
            "max_batch_size": 1,
        },
        "speculative_config": LOOKAHEAD,
    },
    "slow": {"tensor_parallel_size": 1},
}
"""The arguments that the reference passes to the constructor, including those of every later start."""

SAMPLING: dict[str, dict[str, Any]] = {
    "fast": {"temperature": 0.8, "top_p": 0.95, "max_tokens": 1024, "lookahead_config": LOOKAHEAD},
    "slow": {"temperature": 0.8, "top_p": 0.95, "max_tokens": 1024, "lookahead_config": None},
}
"""The parameters that the reference passes with every request; all others are defaults of SamplingParams."""

DIFFERENCES = {
    "fast": {"temperature", "top_p"},
    "slow": {"seed"},
    "both": {
        "end_id",
        "pad_id",
        "stop_token_ids",
        "include_stop_str_in_output",
        "detokenize",
        "add_special_tokens",
        "return_perf_metrics",
    },
}
"""The fields of SamplingParams in which we differ, each with its reason in docs/tensorrt-llm.md."""

PAGE = Path(__file__).parents[2] / "docs" / "tensorrt-llm.md"


async def passed(gpu: FakeGpu, profile: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns the arguments of all constructors, and the last request's parameters with the deployment's defaults."""
    model = write_model(gpu.folder / "model")
    texts = {"calib_dataset": str(calibration_set(gpu.folder / "texts"))} if profile == "fast" else {}
    async with running(
        "trtllm", model=str(model.path), profile=profile, engine_cache=str(gpu.folder / "engines"), **texts
    ) as lab:
        defaults = lab.engine.info().default_sampling
        sampling = Sampling(
            temperature=defaults.temperature or 0.0, top_p=1.0 if defaults.top_p is None else defaults.top_p
        )
        question = Conversation((Message(Role.USER, "Hello"),))
        await lab.ask(EngineRequest("q", question, sampling, Stopping()))
    return [call["arguments"] for call in gpu.calls("constructor")], gpu.calls("request")[-1]["request"]


@pytest.mark.parametrize("profile", REFERENCE)
async def test_the_constructor_gets_the_arguments_of_the_reference(gpu: FakeGpu, profile: str) -> None:
    built, loaded = (await passed(gpu, profile))[0]
    for engine in (built, loaded):
        if profile == "fast":
            assert engine["calib_config"].pop("calib_dataset") == str(gpu.folder / "texts")  # the test has no network
        assert engine == REFERENCE[profile]


@pytest.mark.parametrize("profile", SAMPLING)
async def test_requests_equal_those_of_the_reference_except_for_justified_differences(
    gpu: FakeGpu, profile: str
) -> None:
    from tensorrt_llm import SamplingParams  # noqa: PLC0415 - the fake is importable only now

    _, params = await passed(gpu, profile)
    default = SamplingParams()
    expected = {name: getattr(default, name) for name in default.__dataclass_fields__} | SAMPLING[profile]
    differing = {name for name, value in expected.items() if params[name] != value}
    assert differing == DIFFERENCES[profile] | DIFFERENCES["both"]


@pytest.mark.parametrize("name", sorted(set().union(*DIFFERENCES.values())))
def test_each_difference_has_a_reason(name: str) -> None:
    rows = re.findall(rf"^\|[^|]*`{name}`[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == 1, f"docs/tensorrt-llm.md has no row for {name}"
    assert all(cell.strip() for cell in rows[0])


def test_the_page_describes_the_profiles_correctly() -> None:
    profiles_on_page = dict(
        re.findall(r"```toml\n# profile (\w+) of the engine trtllm\n(.*?)```", PAGE.read_text(), re.DOTALL)
    )
    assert {name: tomllib.loads(text) for name, text in profiles_on_page.items()} == {
        name: {knob: list(value) if isinstance(value, tuple) else value for knob, value in knobs.items()}
        for name, knobs in engine_profiles("trtllm").items()
    }


def test_the_page_describes_every_option() -> None:
    table = PAGE.read_text().partition("## What each knob buys")[2].partition("\n## ")[0]
    named = [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(engine_options("trtllm"))


def test_importing_the_engine_loads_no_library(gpu: FakeGpu) -> None:
    create_engine("trtllm", {"profile": "interactive"})
    assert gpu.calls("constructor") == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"profile": "quick"}, "There is no profile 'quick'; choose one of fast, slow, interactive, throughput."),
        ({"profile": "slow", "speculation": "ngram"}, "The backend tensorrt has no speculation"),
        ({"profile": "fast", "slots": "2"}, "With 2 slots, max_batch_size is 1"),
        ({"profile": "fast", "temperature": "0.8"}, "With speculation all answers are greedy"),
        ({"profile": "interactive", "speculation": "eagle"}, "needs a model; set speculative_model"),
        ({"lookahead": "8,6"}, "lookahead='8,6' cannot be read"),
        ({"temperature": "3"}, "it must be 0 to 2"),
        ({"free_gpu_memory_fraction": "0"}, "it must be above 0 and at most 1"),
        ({"quantization": "INT8"}, "it must be one of FP8, none"),
        ({"adapters": "sql"}, "it must be NAME=PATH"),
        ({"adapters": "sql=a,sql=b"}, "each name once"),
        ({"profile_file": "/nowhere.toml"}, "The profile's file /nowhere.toml cannot be read"),
    ],
)
def test_contradictory_options_are_refused(options: dict[str, str], says: str) -> None:
    with pytest.raises(EngineSetupError, match=re.escape(says)):
        create_engine("trtllm", options)


def test_a_byte_order_mark_is_reported(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("slots = 4\n", encoding="utf-8-sig")
    with pytest.raises(EngineSetupError, match="byte-order mark"):
        create_engine("trtllm", {"profile_file": str(tmp_path / "mine.toml")})


async def test_every_setting_can_be_set_by_file_or_option(gpu: FakeGpu) -> None:
    model = write_model(gpu.folder / "model")
    file = gpu.folder / "mine.toml"
    file.write_text(
        'lookahead = []\ntemperature = 0.7\nmax_batch_size = 4\nslots = 4\nlow_latency_gemm_plugin = "none"\n'
    )
    options = {
        "model": str(model.path),
        "profile_file": str(file),
        "slots": "3",
        "calib_dataset": str(calibration_set(gpu.folder / "texts")),
        "engine_cache": str(gpu.folder / "engines"),
        "enable_block_reuse": "false",
        "host_cache_size": "1024",
        "capacity_scheduler_policy": "MAX_UTILIZATION",
    }
    async with running("trtllm", **options) as lab:
        info = lab.engine.info()
    assert (info.slots, info.default_sampling.temperature, info.context_tokens) == (3, 0.7, 8192)
    assert "sampling.seed" in info.features
    built = gpu.calls("constructor")[0]["arguments"]
    assert "speculative_config" not in built
    assert built["build_config"]["max_batch_size"] == 4
    assert built["build_config"]["plugin_config"]["low_latency_gemm_plugin"] is None
    assert built["kv_cache_config"] == {"": "KvCacheConfig", "enable_block_reuse": False, "host_cache_size": 1024}
    assert built["scheduler_config"]["capacity_scheduler_policy"] == "MAX_UTILIZATION"


@pytest.mark.parametrize("text", ["unknown = 1", "slots = 0", "slots = ["])
def test_an_invalid_profile_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(EngineSetupError, match=r"The profile's file .*mine\.toml"):
        create_engine("trtllm", {"profile_file": str(file)})


@pytest.mark.parametrize(
    ("speculation", "kind"),
    [("eagle", "EagleDecodingConfig"), ("draft", "DraftTargetDecodingConfig"), ("auto", "AutoDecodingConfig")],
)
async def test_other_types_of_speculation_are_configured(gpu: FakeGpu, speculation: str, kind: str) -> None:
    model = write_model(gpu.folder / "model")
    async with running(
        "trtllm", model=str(model.path), profile="interactive", speculation=speculation, speculative_model="org/head"
    ) as lab:
        assert "sampling.top_p" not in lab.engine.info().features
    arguments = gpu.calls("constructor")[0]["arguments"]
    assert arguments["speculative_config"][""] == kind
    assert arguments["disable_overlap_scheduler"] == (speculation == "draft")


VERSIONS = pytest.mark.parametrize("version", ["1.2.1", "1.4.0rc1"])


@VERSIONS
async def test_a_draft_head_runs_in_one_model_with_its_target(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("FAKE_TRTLLM_VERSION", version)
    gpu.be()
    model = write_model(gpu.folder / "model")
    head = write_head(model.path, gpu.folder / "head")
    fits = {"model": str(model.path), "profile": "interactive", "draft": str(head)}
    async with running("trtllm", **fits) as lab:
        info = lab.engine.info()
        outcome = await lab.ask(replace(BASE, key="drafted"))
    assert (info.engine_version, info.default_sampling) == (version, SamplingDefaults(temperature=0.0))
    assert outcome.finish.speculation is not None
    assert outcome.finish.speculation.accepted_tokens > 0
    arguments = gpu.calls("constructor")[0]["arguments"]
    assert arguments["speculative_config"] == {
        "": "EagleDecodingConfig" if version == "1.2.1" else "Eagle3DecodingConfig",
        "max_draft_len": 3,
        "speculative_model": str(head),
        "eagle3_one_model": True,
    }
    assert arguments["disable_overlap_scheduler"] is False
    assert ("telemetry_config" in arguments) == (version != "1.2.1")


async def test_a_head_with_few_positions_is_copied_with_the_models_length(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(gpu.folder / "cache"))
    model = write_model(gpu.folder / "model")
    head = write_head(model.path, gpu.folder / "head", max_position_embeddings=2048)
    options = {"model": str(model.path), "profile": "interactive", "draft": str(head), "draft_tokens": "5"}
    async with running("trtllm", **options):
        pass
    speculation = gpu.calls("constructor")[0]["arguments"]["speculative_config"]
    copy = Path(speculation["speculative_model"])
    assert (speculation["max_draft_len"], copy.parent) == (5, gpu.folder / "cache" / "doherty" / "heads")
    assert json.loads((copy / "config.json").read_text())["max_position_embeddings"] == 8192


@pytest.mark.parametrize(
    ("changes", "options", "says"),
    [
        ({"hidden_size": 2048}, {}, "its hidden size is 2048, the model's is 4096"),
        ({"architectures": ["DFlashDraftModel"], "block_size": 10}, {}, "is a head of dflash, but TensorRT-LLM needs"),
        ({"max_position_embeddings": 2048, "rope_scaling": {"rope_type": "yarn"}}, {}, "set max_seq_len=2048"),
        ({}, {"profile": "fast"}, "The backend tensorrt has no speculation"),
        ({}, {"speculation": "ngram"}, "leave those out, or draft"),
        ({}, {"draft": "", "draft_tokens": "2"}, "The options for drafts need a draft head"),
    ],
)
async def test_heads_that_cannot_draft_are_refused(
    gpu: FakeGpu, changes: dict[str, Any], options: dict[str, str], says: str
) -> None:
    model = write_model(gpu.folder / "model")
    head = write_head(model.path, gpu.folder / "head", **changes)
    values = {"model": str(model.path), "profile": "interactive", "draft": str(head), **options}
    with pytest.raises(EngineSetupError, match=re.escape(says)):
        await asyncio.wait_for(create_engine("trtllm", values).start(lambda _: None), 30)
    assert gpu.calls("constructor") == []


async def test_the_newest_version_refuses_the_tensorrt_backend(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_TRTLLM_VERSION", "1.4.0rc1")
    gpu.be()
    model = write_model(gpu.folder / "model")
    engine = create_engine("trtllm", {"model": str(model.path), "profile": "slow"})
    with pytest.raises(
        EngineSetupError, match=r"1\.4\.0rc1 has no backend tensorrt any more; choose the profile inter"
    ):
        await asyncio.wait_for(engine.start(lambda _: None), 30)


async def test_the_models_sampling_is_used_unless_the_profile_sets_it(gpu: FakeGpu) -> None:
    model = write_model(gpu.folder / "model")
    async with running("trtllm", model=str(model.path), profile="interactive") as lab:
        assert lab.engine.info().default_sampling == SamplingDefaults(temperature=0.6, top_p=0.9)


async def test_each_layer_is_split_over_all_gpus(gpu: FakeGpu) -> None:
    model = write_model(gpu.folder / "model")
    gpu.be(cards=[H100] * 2)
    async with running("trtllm", model=str(model.path), profile="interactive"):
        pass
    assert gpu.calls("constructor")[0]["arguments"]["tensor_parallel_size"] == 2
    for cards, options, says in (
        ([H100], {"tensor_parallel_size": "2"}, "there are 1"),
        ([H100, L4], {}, "of different kinds"),
    ):
        gpu.be(cards=cards)
        engine = create_engine("trtllm", {"model": str(model.path), "profile": "interactive", **options})
        with pytest.raises(EngineSetupError, match=says):
            await asyncio.wait_for(engine.start(lambda _: None), 30)


async def test_each_layer_is_split_over_the_gpus_of_all_nodes(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's trtllm-llmapi-launch describes the nodes in this way."""
    monkeypatch.setenv("TLLM_SPAWN_PROXY_PROCESS", "1")
    monkeypatch.setenv("tllm_mpi_size", "4")
    model = write_model(gpu.folder / "model")
    gpu.be(cards=[H100] * 2)
    async with running("trtllm", model=str(model.path), profile="interactive"):
        pass
    assert gpu.calls("constructor")[0]["arguments"]["tensor_parallel_size"] == 4
