"""Drafts on the vLLM engine: its configuration, refused options, and the counts of each request."""

import json
import logging
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from doherty_engine import EngineSetupError, Speculation, Stopping, create_engine
from doherty_engine.vllm._stats import Board, Tally, counting
from support.hub import MODEL, running_hub
from support.server import start_server
from support.vllm import FAKE_PATH, VllmLab, fake_vllm, vllm_lab, vllm_request, write_head
from support.wire import connect

VERSIONS = pytest.mark.parametrize("version", ["0.26.0", "0.33.0"])
DFLASH = {"architectures": ["DFlashDraftModel"], "draft_vocab_size": None, "block_size": 10, "num_hidden_layers": 5}
ENDLESS = Stopping(max_output_tokens=40, ignore_eos=True)


async def draft_config(tmp_path: Path, head: Path, **options: str) -> dict[str, Any]:
    """Returns the configuration of drafts that is passed to vLLM."""
    async with vllm_lab(tmp_path / "model", draft=str(head), **options) as vllm:
        config: dict[str, Any] = vllm.llm.vllm_config.arguments["speculative_config"]
    return config


@pytest.mark.parametrize(
    ("changes", "method", "drafts"),
    [
        ({}, "eagle3", 3),
        ({"architectures": ["Eagle3Qwen3ForCausalLM"], "draft_vocab_size": None}, "eagle3", 3),
        ({"architectures": ["LlamaForCausalLM"], "draft_vocab_size": None}, "eagle", 2),
        (DFLASH, "dflash", 9),
    ],
)
async def test_the_config_of_the_head_determines_the_drafts(
    tmp_path: Path, changes: dict[str, Any], method: str, drafts: int
) -> None:
    head = write_head(tmp_path / "model", tmp_path / "head", **changes)
    assert await draft_config(tmp_path, head) == {
        "method": method,
        "model": str(head),
        "num_speculative_tokens": drafts,
    }


async def test_a_head_of_the_library_speculators_is_supported(tmp_path: Path) -> None:
    head = write_head(tmp_path / "model", tmp_path / "head", architectures=["Eagle3Speculator"])
    config = json.loads((head / "config.json").read_text())
    layers = {name: config.pop(name) for name in ("max_position_embeddings", "num_hidden_layers")}
    kind = {"speculators_model_type": "eagle3", "transformer_layer_config": layers, "target_hidden_size": 64}
    (head / "config.json").write_text(json.dumps(config | kind))
    assert (await draft_config(tmp_path, head))["method"] == "eagle3"


@pytest.mark.parametrize(
    ("options", "drafts", "ranges"),
    [
        ({}, 9, None),
        ({"draft_tokens": "5"}, 5, None),
        ({"draft_schedule": "8:5,64:2"}, 5, [[1, 8, 5], [9, 64, 2]]),
        ({"draft_schedule": "4:3,16:0", "draft_tokens": "5"}, 5, [[1, 4, 3], [5, 16, 0]]),
        ({"draft_schedule": "64:3"}, 3, None),
        ({"profile": "fastest"}, 9, [[1, 25, 9], [26, 42, 5], [43, 64, 3]]),
        ({"profile": "fastest", "draft_tokens": "3"}, 3, None),
        ({"profile": "fastest", "draft_tokens": "3", "slots": "256"}, 3, [[1, 64, 3], [65, 85, 2], [86, 256, 1]]),
        ({"profile": "fastest", "draft_schedule": "64:3"}, 3, None),
    ],
)
async def test_the_number_of_drafted_tokens_is_configured(
    tmp_path: Path, options: dict[str, str], drafts: int, ranges: list[list[int]] | None
) -> None:
    config = await draft_config(tmp_path, write_head(tmp_path / "model", tmp_path / "head", **DFLASH), **options)
    assert config["num_speculative_tokens"] == drafts
    assert config.get("num_speculative_tokens_per_batch_size") == ranges


@pytest.mark.parametrize("options", [{}, {"draft_schedule": "64:3"}, {"slots": "256"}])
async def test_an_eagle_head_always_drafts_the_same_number_of_tokens(tmp_path: Path, options: dict[str, str]) -> None:
    config = await draft_config(
        tmp_path, write_head(tmp_path / "model", tmp_path / "head"), profile="fastest", **options
    )
    assert config["num_speculative_tokens"] == 3
    assert "num_speculative_tokens_per_batch_size" not in config


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"slots": "64"}, 640),
        ({"slots": "51"}, None),
        ({"slots": "64", "engine_args": '{"max_cudagraph_capture_size": 512}'}, 512),
    ],
)
async def test_cuda_graphs_have_room_for_the_drafts_of_all_slots(
    tmp_path: Path, options: dict[str, str], size: int | None
) -> None:
    head = write_head(tmp_path / "model", tmp_path / "head", **DFLASH)
    async with vllm_lab(tmp_path / "model", draft=str(head), **options) as vllm:
        assert vllm.llm.vllm_config.arguments.get("max_cudagraph_capture_size") == size


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        (
            {"hidden_size": 128},
            {},
            "head .* does not fit model: its hidden size is 128, the model's is 64; choose a head",
        ),
        ({"target_hidden_size": 32}, {}, "its hidden size is 32"),
        ({"vocab_size": 7}, {}, "its vocabulary is 7, the model's is"),
        (
            {"architectures": ["LlamaForCausalLM"], "draft_vocab_size": None, "num_hidden_layers": 16},
            {},
            "is not an EAGLE, EAGLE-3 or DFlash head according to its config.json",
        ),
        ({"speculators_model_type": "peagle"}, {}, "is not an EAGLE"),
        ({**DFLASH, "block_size": None}, {}, "has no block_size in its config.json"),
        (DFLASH, {"draft_tokens": "10"}, "drafts at most 9 tokens per step"),
        (
            {"max_position_embeddings": 2048, "rope_scaling": {"rope_type": "yarn"}},
            {},
            "drafts up to position 2048, and the context has 8192; set max_model_len=2048",
        ),
        ({}, {"ngram": "4"}, "from a head or from n-grams, not from both"),
        ({}, {"draft_schedule": "8:5", "draft_tokens": "3"}, "has up to 5 draft tokens, and draft_tokens allows 3"),
        ({}, {"draft_schedule": "8:3,64:1"}, "does not start with a draft_schedule for a head of eagle3"),
    ],
)
async def test_an_unsuitable_head_is_refused_before_vllm_starts(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, str], sentence: str
) -> None:
    head = write_head(tmp_path / "model", tmp_path / "head", **changes)
    await refused(sentence, model=str(tmp_path / "model"), draft=str(head), **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"profile": "fastest"}, "The profile fastest needs a draft head for this model; name one with `draft`"),
        ({"draft_tokens": "3"}, "The options for drafts need a draft head"),
        ({"draft_schedule": "8:3"}, "The options for drafts need a draft head"),
        (
            {"ngram": "4", "engine_args": '{"speculative_config": {"rejection_sample_method": "fly"}}'},
            "The rejection_sample_method fly changes the model's answers",
        ),
    ],
)
async def test_contradictory_options_are_refused(tmp_path: Path, options: dict[str, str], sentence: str) -> None:
    write_head(tmp_path / "model", tmp_path / "head")
    await refused(sentence, model=str(tmp_path / "model"), **options)


async def refused(sentence: str, **options: str) -> None:
    with fake_vllm() as fake:
        with pytest.raises(EngineSetupError, match=sentence) as raised:
            await create_engine("vllm", options).start(lambda _: None)
        assert not fake.ENGINES
    assert "\n" not in str(raised.value)


async def test_a_short_head_serves_a_long_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    head = write_head(tmp_path / "model", tmp_path / "head", max_position_embeddings=32)
    async with vllm_lab(tmp_path / "model", draft=str(head)) as vllm:
        place = Path(vllm.llm.vllm_config.arguments["speculative_config"]["model"])
        assert (await vllm.ask(stopping=ENDLESS)).finish.output_tokens == 40  # the fake dies after position 32
    assert place.is_relative_to(tmp_path / "cache" / "doherty" / "heads")
    assert place.stat().st_mode & 0o777 == 0o700  # noqa: ASYNC240 - nothing else runs
    assert json.loads((place / "config.json").read_text())["max_position_embeddings"] == 8192
    assert (place / "model.safetensors").readlink() == head / "model.safetensors"
    assert json.loads((head / "config.json").read_text())["max_position_embeddings"] == 32
    # The folder stays the same, because the key of vLLM's compiled graphs contains it.
    assert (await draft_config(tmp_path, head))["model"] == str(place)


def test_a_short_head_on_the_hub_is_downloaded_for_its_copy(tmp_path: Path) -> None:
    model = tmp_path / "model"
    head = write_head(model, tmp_path / "head", max_position_embeddings=32)
    cache = tmp_path / "cache"
    with running_hub(head) as hub:
        variables = hub.variables(tmp_path / "hub") | {"PYTHONPATH": FAKE_PATH, "XDG_CACHE_HOME": str(cache)}
        flags = ("--engine", "vllm", "--model", str(model), "-o", "profile=fastest", "-o", f"draft={MODEL}")
        with start_server(*flags, **variables) as server, connect(server.target) as caller:
            stopping = {"max_output_tokens": 60, "ignore_eos": True}
            speculation = caller.generate(prompt="Go on.", stopping=stopping).summary.speculation
    assert speculation.draft_tokens == 3 * (speculation.steps - 1) > 0
    (copy,) = (cache / "doherty" / "heads").iterdir()
    assert (copy / "model.safetensors").read_bytes() == b"weights"


async def test_a_head_with_enough_positions_needs_no_copy(tmp_path: Path) -> None:
    head = write_head(tmp_path / "model", tmp_path / "head", max_position_embeddings=64)
    assert (await draft_config(tmp_path, head, max_model_len="64"))["model"] == str(head)


async def test_a_later_vllm_extends_a_heads_positions_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VLLM_VERSION", "0.33.0")
    head = write_head(tmp_path / "model", tmp_path / "head", max_position_embeddings=32)
    assert (await draft_config(tmp_path, head))["model"] == str(head)


async def test_a_cache_that_cannot_be_written_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    head = write_head(tmp_path / "model", tmp_path / "head", max_position_embeddings=32)
    await refused("set XDG_CACHE_HOME to a writable folder", model=str(tmp_path / "model"), draft=str(head))


async def test_n_grams_log_a_warning_on_the_first_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with vllm_lab(tmp_path / "model", ngram="3") as vllm:
        assert vllm.llm.vllm_config.arguments["speculative_config"] == {
            "method": "ngram",
            "num_speculative_tokens": 3,
            "prompt_lookup_min": 1,
            "prompt_lookup_max": 4,
        }
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith("vLLM 0.26.0 runs ngram on its first model runner, without asynchronous scheduling")
    assert "a token took 8.4 ms instead of 4.2" in warning
    caplog.clear()
    monkeypatch.setenv("FAKE_VLLM_VERSION", "0.33.0")
    async with vllm_lab(tmp_path / "model", ngram="3"):
        pass
    assert not caplog.records


async def test_other_arguments_for_vllm_are_kept_with_a_head(tmp_path: Path) -> None:
    head = write_head(tmp_path / "model", tmp_path / "head")
    drawn = {"rejection_sample_method": "synthetic", "synthetic_acceptance_rates": [0.8, 0.6, 0.4]}
    given = await draft_config(tmp_path, head, engine_args=json.dumps({"speculative_config": drawn}))
    assert given == {"method": "eagle3", "model": str(head), "num_speculative_tokens": 3, **drawn}


async def ask_together(vllm: VllmLab, number: int) -> list[Speculation]:
    requests = [vllm_request(stopping=ENDLESS) for _ in range(number)]
    for request in requests:
        vllm.lab.submit(request)
    speculations = []
    for request in requests:
        outcome = await vllm.lab.outcome(request.key)
        assert outcome.finish.speculation is not None
        speculations.append(outcome.finish.speculation)
    return speculations


@VERSIONS
@pytest.mark.parametrize("number", [1, 5])
async def test_each_request_reports_its_own_drafts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, number: int
) -> None:
    monkeypatch.setenv("FAKE_VLLM_VERSION", version)
    head = write_head(tmp_path / "model", tmp_path / "head")
    async with vllm_lab(tmp_path / "model", draft=str(head)) as vllm:
        info = vllm.lab.engine.info()
        assert "sampling.min_p" not in info.features
        before = vllm.lab.engine.health().drafting
        answers = await ask_together(vllm, number)
        after = vllm.lab.engine.health().drafting
    for answer in answers:
        assert answer.draft_tokens == 3 * (answer.steps - 1)
        # On 0.33, vLLM's figures also include accepted tokens after the end.
        assert 40 <= answer.steps + answer.accepted_tokens <= (40 if version == "0.26.0" else 43)
    assert before is not None
    assert after is not None
    assert after.draft_tokens - before.draft_tokens == sum(answer.draft_tokens for answer in answers)
    assert after.drafts - before.drafts == sum(answer.steps - 1 for answer in answers)
    assert after.accepted_tokens - before.accepted_tokens >= sum(answer.accepted_tokens for answer in answers)
    assert list(after.accepted_by_position) == sorted(after.accepted_by_position, reverse=True)


async def test_fewer_tokens_are_drafted_if_other_requests_run(tmp_path: Path) -> None:
    head = write_head(tmp_path / "model", tmp_path / "head", **DFLASH)
    async with vllm_lab(tmp_path / "model", draft=str(head), draft_schedule="1:4,8:1") as vllm:
        (alone,) = await ask_together(vllm, 1)
        together = await ask_together(vllm, 4)
    assert alone.draft_tokens == 4 * (alone.steps - 1)
    assert all(answer.draft_tokens < 2 * answer.steps for answer in together)
    assert all(answer.steps > alone.steps for answer in together)


def test_steps_that_were_not_fetched_are_counted_before_they_are_merged() -> None:
    board, tally = Board(), Tally()
    with fake_vllm() as fake:
        outputs = import_module("vllm.outputs")
        stats = import_module("vllm.v1.metrics.stats")
        collector = fake.RequestOutputCollector(import_module("vllm.sampling_params").RequestOutputKind.DELTA, "a")
        collector.put = counting(collector.put, tally, board)
        for ids in ([1], [2, 3, 4], [5]):
            answer = outputs.CompletionOutput(0, "", ids, None, None)
            collector.put(outputs.RequestOutput("a", None, [0], None, [answer], finished=False))
            drafted = None
            if ids != [1]:
                drafted = stats.SpecDecodingStats(3, 0, 0, 0, [0] * 3)
                drafted.observe_draft(3, len(ids) - 1)
            board.record(stats.SchedulerStats(spec_decoding_stats=drafted))
        assert list(collector.get_nowait().outputs[0].token_ids) == [1, 2, 3, 4, 5]
    assert tally.speculation() == Speculation(steps=3, draft_tokens=6, accepted_tokens=2)
    assert board.drafting().accepted_by_position == (1, 1, 0)


async def test_without_drafts_answers_report_no_drafts(tmp_path: Path) -> None:
    async with vllm_lab(tmp_path / "model") as vllm:
        assert (await vllm.ask()).finish.speculation is None
        assert vllm.lab.engine.health().drafting is None
