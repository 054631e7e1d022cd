"""The options of the engine."""

from dataclasses import dataclass

from doherty_engine._options import option, parse_adapters, parse_positive
from doherty_engine.trtllm._knobs import Knobs
from doherty_engine.trtllm._profiles import DEFAULT_PROFILE, PROFILES

REFERENCE_MODEL = "NousResearch/Meta-Llama-3-8B-Instruct"
REFERENCE_REVISION = "53346005fb0ef11d3b6a83b12c895cca40156b6c"
"""The model of the reference deployment. It can be downloaded without an account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Knobs):
    """The model, the profile, and the knobs that differ from the profile."""

    model: str = option(
        REFERENCE_MODEL,
        str,
        f'A Hugging Face model: a folder, or an id on the hub. The default is "{REFERENCE_MODEL}".',
    )
    revision: str = option("", str, "The commit, branch or tag of a model on the hub.")
    profile: str = option(
        DEFAULT_PROFILE, str, f"One of {', '.join(PROFILES)}; `doherty engine show` prints them. The default is fast."
    )
    profile_file: str = option("", str, "A TOML file with knobs that override the profile.")
    engine_cache: str = option(
        "", str, "The folder for built engines. The default is doherty/engines in the user's cache folder."
    )
    draft: str = option(
        "",
        str,
        'An EAGLE-3 head for this model: a folder, or the id "org/name" of one on the hub. (Backend pytorch only.)',
    )
    draft_revision: str = option("", str, "The commit, branch or tag of a head on the hub.")
    draft_tokens: int | None = option(
        None, parse_positive, "The number of tokens that the head drafts per step. The default is 3."
    )
    adapters: tuple[tuple[str, str], ...] = option(
        (), parse_adapters, "LoRA adapters as NAME=FOLDER, separated by commas; requests select them by name."
    )
    max_lora_rank: int | None = option(None, parse_positive, "Maximum rank of the adapters. The default is 64.")
