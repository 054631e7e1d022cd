"""What a deployment may set."""

from dataclasses import dataclass

from doherty_engine._cores import usable_cores
from doherty_engine._options import option, parse_bool, parse_positive


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of the engine."""

    model: str = option(
        "",
        str,
        'A GGUF file, a folder with one, or one on the hub as "org/name", "org/name:QUANT" or "org/name/file.gguf". '
        "Among several, Q4_K_M is taken. The default is SmolLM2-135M-Instruct.",
    )
    revision: str = option("", str, "The commit, branch or tag of a model on the hub.")
    slots: int = option(4, parse_positive, "How many requests are worked on at the same time.")
    context_tokens: int | None = option(
        None,
        parse_positive,
        "The KV cache, which all slots share, and the most that one request may take of it, in tokens. "
        "The default is 8192, or the model's context where that is smaller.",
    )
    threads: int | None = option(
        None,
        parse_positive,
        "The threads that compute. The default leaves one of the cores that the process may use to the server.",
    )
    prompt_cache: bool = option(
        True,  # noqa: FBT003  the default of a switch is a switch
        parse_bool,
        "Whether a prompt's beginning is reused where a slot still holds it.",
    )


def default_threads() -> int:
    """All cores but one: libgomp's barriers collapse when its threads compete with the server for a core."""
    return max(1, usable_cores() - 1)
