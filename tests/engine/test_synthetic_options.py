import pytest

from doherty_engine import EngineSetupError, RawText, SamplingDefaults, create_engine
from doherty_engine.synthetic import Options, SyntheticEngine
from support.engines import running


def test_the_engine_is_found_by_name_and_is_not_the_default() -> None:
    assert isinstance(create_engine("synthetic"), SyntheticEngine)


async def test_options_are_read_from_text() -> None:
    async with running("synthetic", slots="3", context_tokens="100", answer_tokens="40, 170") as lab:
        info = lab.engine.info()
    assert (info.slots, info.context_tokens) == (3, 100)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("slots", "0"),
        ("slots", "many"),
        ("tokens_per_second", "-1"),
        ("tokens_per_second", "nan"),
        ("tokens_per_second", "inf"),
        ("tokens_per_step", "0"),
        ("prefill_seconds", "-0.1"),
        ("answer_tokens", ""),
        ("answer_tokens", "40,"),
        ("answer_tokens", "40,0"),
        ("fail_after_tokens", "-1"),
        ("speed", "1"),
    ],
)
def test_an_invalid_option_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(EngineSetupError, match=name):
        create_engine("synthetic", {name: text})


async def test_info_lists_all_supported_fields() -> None:
    async with running("synthetic") as lab:
        info = lab.engine.info()
    assert info.slots == Options().slots == 64
    assert (info.model, info.engine, info.adapters) == ("synthetic", "synthetic", ("demo-a", "demo-b"))
    assert info.default_sampling == SamplingDefaults(temperature=0.0)
    assert info.max_top_logprobs == 20
    assert {"prompt", "sampling.seed", "stopping.min_output_tokens", "constraint.choices"} <= info.features
    assert not {"constraint.regex", "constraint.grammar"} & info.features


async def test_tokens_are_counted_only_while_the_engine_runs() -> None:
    engine = create_engine("synthetic")
    await engine.start(lambda _: None)
    assert await engine.count_tokens(RawText(" water🙂")) == 5
    assert engine.health().ok
    await engine.stop()
    await engine.stop()
    assert not engine.health().ok
