"""Configures vLLM's speculative decoding."""

from collections.abc import Mapping

from doherty_engine._errors import EngineSetupError
from doherty_engine.models import DFLASH, Head, context_length, extend_positions, read_head
from doherty_engine.text import ModelFolder, find_model_folder
from doherty_engine.vllm._library import EXTRA, Library
from doherty_engine.vllm._options import Options
from doherty_engine.vllm._schedule import AUTO, Schedule, as_ranges, automatic_schedule

_NGRAM_WINDOW = 4


def speculative_config(
    options: Options, values: Mapping[str, object], model: ModelFolder, library: Library
) -> dict[str, object] | None:
    """The fields of vLLM's SpeculativeConfig; None without speculative decoding.

    Args:
        options: The options of the deployment.
        values: The values of the profile, overridden by the options that are set.
        model: The model.
        library: vLLM.

    Raises:
        EngineSetupError: The options contradict each other, or the head does not fit.
    """
    engine_args = (options.engine_args or {}).get("speculative_config")
    overrides = dict(engine_args) if isinstance(engine_args, dict) else {}
    if overrides.get("rejection_sample_method") == "fly":
        raise EngineSetupError(
            "The rejection_sample_method fly changes the model's answers; leave it out, so that drafts change only "
            "the speed."
        )
    config = {**_config(options, values, model, library), **overrides}
    return config or None


def first_runner_warning(*, method: str, version: str) -> str:
    """The warning to log if vLLM runs drafts on its first model runner.

    The times are of an 8B model in FP8 on one H100 with vLLM 0.26 (benchmarks/gpu/NOTES.md).
    """
    cost = (
        f"vLLM {version} runs {method} on its first model runner, without asynchronous scheduling and with fewer CUDA "
        "graphs: each step of an 8B model on an H100 was 3 to 28 ms longer"
    )
    if method in ("ngram", "ngram_gpu"):
        return f"{cost}, and a token took 8.4 ms instead of 4.2; leave ngram out, or use vLLM 0.33."
    return f"{cost}; a head of EAGLE-3 or DFlash (`draft`) runs on the second one."


def _config(options: Options, values: Mapping[str, object], model: ModelFolder, library: Library) -> dict[str, object]:
    """The fields that follow from the options other than `engine_args`."""
    if not options.draft:
        _check_no_draft(options, values)
        return _ngram_config(values)
    if values.get("ngram"):
        raise EngineSetupError("Drafts come from a head or from n-grams, not from both; leave out draft or ngram.")
    folder = find_model_folder(options.draft, options.draft_revision, extra=EXTRA)
    head = read_head(folder, model)
    schedule = values.get("draft_schedule")
    drafts = _draft_tokens(options, head, schedule if isinstance(schedule, tuple) else ())
    config: dict[str, object] = {"method": head.method, "num_speculative_tokens": drafts}
    config |= _place(head, context_length(model, values.get("max_model_len")), library)
    slots = values.get("slots")
    if schedule == AUTO and isinstance(slots, int) and head.method == DFLASH:
        schedule = automatic_schedule(drafts, slots)
    if isinstance(schedule, tuple) and any(number != drafts for _, number in schedule):
        if head.method != DFLASH:
            raise EngineSetupError(
                f"vLLM {library.version} does not start with a draft_schedule for a head of {head.method} (its issue "
                "48494); leave draft_schedule out, and set draft_tokens."
            )
        config["num_speculative_tokens_per_batch_size"] = as_ranges(schedule)
    return config


def _check_no_draft(options: Options, values: Mapping[str, object]) -> None:
    if options.draft_revision or options.draft_tokens is not None or options.draft_schedule is not None:
        raise EngineSetupError("The options for drafts need a draft head; name one with `draft`.")
    if values.get("draft_schedule") is not None:
        raise EngineSetupError(
            f"The profile {options.profile} needs a draft head for this model; name one with `draft`, or choose the "
            "profile fast."
        )


def _ngram_config(values: Mapping[str, object]) -> dict[str, object]:
    if not values.get("ngram"):
        return {}
    return {
        "method": "ngram",
        "num_speculative_tokens": values["ngram"],
        "prompt_lookup_min": 1,
        "prompt_lookup_max": values.get("ngram_window", _NGRAM_WINDOW),
    }


def _draft_tokens(options: Options, head: Head, schedule: Schedule) -> int:
    """The maximum number of tokens to draft per step."""
    scheduled = max((drafts for _, drafts in schedule), default=0)
    drafts = options.draft_tokens or scheduled or head.draft_tokens
    if scheduled > drafts:
        raise EngineSetupError(
            f"The draft_schedule has up to {scheduled} draft tokens, and draft_tokens allows {drafts}; "
            "raise draft_tokens."
        )
    if head.max_draft_tokens is not None and drafts > head.max_draft_tokens:
        raise EngineSetupError(
            f"The head {head.folder.model} drafts at most {head.max_draft_tokens} tokens per step; lower draft_tokens."
        )
    return drafts


def _place(head: Head, context: int | None, library: Library) -> dict[str, object]:
    """The path of the head for vLLM: the head itself, or a copy for a longer context."""
    if head.positions is not None and context is not None and head.positions < context:
        if not head.can_extend_positions:
            raise EngineSetupError(
                f"The head {head.folder.model} drafts up to position {head.positions}, and the context has {context}; "
                f"set max_model_len={head.positions}."
            )
        if not library.extends_head_positions:
            return {"model": str(extend_positions(head.folder, context))}
    if head.folder.revision:
        return {"model": head.folder.model, "revision": head.folder.revision}
    return {"model": str(head.folder.path)}
