"""The deployment's defaults for fields that a request does not set."""

import pytest

from doherty.v1 import answer_pb2
from support.server import ServerProcess, start_server
from support.wire import connect

SYSTEM = "Answer like a pirate."


def test_a_deployment_can_have_defaults() -> None:
    flags = ("--temperature", "1.5", "--top-p", "0.5", "--system-prompt", SYSTEM, "--max-output-tokens", "7")
    with start_server("--engine", "synthetic", *flags) as server, connect(server.target) as caller:
        assert caller.model.default_sampling.temperature == pytest.approx(1.5)
        assert caller.model.default_sampling.top_p == pytest.approx(0.5)
        assert caller.model.limits.default_max_output_tokens == 7
        first, second = (caller.generate(prompt="Name three colors.") for _ in range(2))
        assert first.summary.finish_reason == answer_pb2.FINISH_REASON_LENGTH
        assert first.summary.usage.output_tokens == 7
        assert first.text != second.text  # sampled, with a seed drawn for each
        seed = first.summary.seed
        explicit = {"temperature": 1.5, "top_p": 0.5, "seed": str(seed)}
        assert caller.generate(prompt="Name three colors.", sampling=explicit).text == first.text
        user = {"role": "ROLE_USER", "content": "Name three colors."}
        with_system = [{"role": "ROLE_SYSTEM", "content": SYSTEM}, user]
        own_system = [{"role": "ROLE_SYSTEM", "content": SYSTEM + " Always."}, user]
        sizes = [
            caller.generate(messages=messages).start.prompt_tokens for messages in ([user], with_system, own_system)
        ]
        assert sizes[0] == sizes[1] < sizes[2]


def test_the_models_own_defaults_come_after_the_deployments(synthetic_server: ServerProcess) -> None:
    with connect(synthetic_server.target) as caller:
        assert caller.model.default_sampling.HasField("temperature")
        assert caller.model.default_sampling.temperature == 0
        assert not caller.model.default_sampling.HasField("top_p")
        assert not caller.generate(prompt="a").summary.HasField("seed")


@pytest.mark.model
def test_the_packaged_model_has_the_sampling_settings_of_its_model_card(model_server: ServerProcess) -> None:
    with connect(model_server.target) as caller:
        assert caller.model.default_sampling.temperature == pytest.approx(0.2)
        assert caller.model.default_sampling.top_p == pytest.approx(0.9)
        assert caller.model.revision.startswith("sha256:")
