"""The options of the engine `llamacpp`."""

from dataclasses import dataclass

from doherty_engine._cores import usable_cores
from doherty_engine._options import option, parse_bool, parse_positive


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the engine."""

    model: str = option(
        "",
        str,
        "A GGUF file, a folder with GGUF files, or a model on the Hugging Face hub as "
        '"org/name", "org/name:QUANT" or "org/name/file.gguf". '
        "If there are several files, the one quantized as Q4_K_M is used. The default is SmolLM2-135M-Instruct.",
    )
    revision: str = option("", str, "The commit, branch or tag of a model on the hub.")
    slots: int = option(4, parse_positive, "The number of requests that run at the same time.")
    context_tokens: int | None = option(
        None,
        parse_positive,
        "The size of the KV cache in tokens. All slots share it, and one request may use all of it. "
        "The default is 8192, or the model's context if that is smaller.",
    )
    threads: int | None = option(
        None,
        parse_positive,
        "The number of threads that compute. The default is one less than the number of CPU cores that the process may "
        "use, so that one core is left for the server.",
    )
    prompt_cache: bool = option(
        True,  # noqa: FBT003  the default of a boolean option
        parse_bool,
        "Whether a request may reuse the KV cache of an earlier request whose prompt starts the same.",
    )


def default_threads() -> int:
    """All usable cores but one: libgomp's barriers become very slow when its threads share a core with the server."""
    return max(1, usable_cores() - 1)
