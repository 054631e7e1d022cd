"""What vLLM is told about drafts, and what a configuration of them costs."""

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
    """The fields of vLLM's SpeculativeConfig; None where nothing is drafted.

    Args:
        options: those of the deployment.
        values: what of them is set, by the profile or by the deployment.
        model: the model.
        library: vLLM.

    Raises:
        EngineSetupError: the options contradict each other, or the head does not fit.
    """
    further = (options.engine_args or {}).get("speculative_config")
    own = dict(further) if isinstance(further, dict) else {}
    if own.get("rejection_sample_method") == "fly":
        raise EngineSetupError(
            "The rejection_sample_method fly changes what the model answers; leave it out, and drafts change its speed "
            "alone."
        )
    config = {**_own_config(options, values, model, library), **own}
    return config or None


def first_runner_warning(*, method: str, version: str) -> str:
    """What to log where vLLM runs drafts on its first model runner.

    The times are those of an 8B in FP8 on one H100 with vLLM 0.26 (benchmarks/gpu/NOTES.md).
    """
    cost = (
        f"vLLM {version} runs {method} on its first model runner, without asynchronous scheduling and with fewer CUDA "
        "graphs: each step of an 8B on an H100 was 3 to 28 ms longer"
    )
    if method in ("ngram", "ngram_gpu"):
        return f"{cost}, and a token took 8.4 ms in place of 4.2; leave ngram out, or use vLLM 0.33."
    return f"{cost}; a head of EAGLE-3 or DFlash (`draft`) runs on the second one."


def _own_config(
    options: Options, values: Mapping[str, object], model: ModelFolder, library: Library
) -> dict[str, object]:
    """What follows from the options, without `engine_args`."""
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
        raise EngineSetupError("There is no head whose drafts could be set; name one with `draft`.")
    if values.get("draft_schedule") is not None:
        raise EngineSetupError(
            f"The profile {options.profile} needs a head that drafts for this model; name one with `draft`, or choose "
            "the profile fast."
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
    """How many tokens are drafted a step, at the most."""
    scheduled = max((drafts for _, drafts in schedule), default=0)
    drafts = options.draft_tokens or scheduled or head.draft_tokens
    if scheduled > drafts:
        raise EngineSetupError(
            f"The draft_schedule asks for {scheduled} drafts, and draft_tokens allows {drafts}; raise draft_tokens."
        )
    if head.max_draft_tokens is not None and drafts > head.max_draft_tokens:
        raise EngineSetupError(
            f"The head {head.folder.model} drafts at most {head.max_draft_tokens} tokens a step; ask for no more."
        )
    return drafts


def _place(head: Head, context: int | None, library: Library) -> dict[str, object]:
    """Where vLLM finds the head: where it is, or in a copy for a longer context."""
    if head.positions is not None and context is not None and head.positions < context:
        if not head.can_extend_positions:
            raise EngineSetupError(
                f"The head {head.folder.model} drafts up to position {head.positions}, and the context has {context}; "
                f"set max_model_len={head.positions}."
            )
        if not library.stretches_heads:
            return {"model": str(extend_positions(head.folder, context))}
    if head.folder.revision:
        return {"model": head.folder.model, "revision": head.folder.revision}
    return {"model": str(head.folder.path)}
