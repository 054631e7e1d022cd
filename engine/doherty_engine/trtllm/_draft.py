"""A draft head on the PyTorch backend: EAGLE-3, in one model with its target.

One model drafts and verifies within the same step, with CUDA graphs and the overlap scheduler. It is what will stay:
the other way, two models, is to be removed in 1.4 (`EagleDecodingConfig` of `llmapi/llm_args.py`).
"""

import os
from dataclasses import replace
from typing import Any

from doherty_engine._errors import EngineSetupError
from doherty_engine.models import EAGLE3, Head, extend_positions, fetch_head, read_head
from doherty_engine.text import ModelFolder, find_model_folder
from doherty_engine.trtllm._knobs import Knobs
from doherty_engine.trtllm._options import Options


def drafting_knobs(options: Options) -> dict[str, Any]:
    """The knobs that the option `draft` turns; none without it.

    Raises:
        EngineSetupError: the options contradict each other.
    """
    if not options.draft:
        if options.draft_revision or options.draft_tokens is not None:
            raise EngineSetupError("There is no head whose drafts could be set; name one with `draft`.")
        return {}
    if options.speculation or options.speculative_model or options.max_draft_len:
        raise EngineSetupError(
            "The option draft sets speculation, speculative_model and max_draft_len; leave those out, or draft."
        )
    return {"speculation": "eagle", "speculative_model": options.draft, "max_draft_len": options.draft_tokens}


def find_head(options: Options, model: ModelFolder) -> Head | None:
    """The head that the deployment names; fetches its config.json, and compares it with the model's.

    Raises:
        EngineSetupError: it is no EAGLE-3 head, or is made for another model.
    """
    if not options.draft:
        return None
    head = read_head(find_model_folder(options.draft, options.draft_revision, extra="trtllm"), model)
    if head.method != EAGLE3:
        raise EngineSetupError(
            f"The head {head.folder.model} is of {head.method}, and TensorRT-LLM drafts with EAGLE-3; name another "
            "one, or use the engine vllm."
        )
    return head


def place_head(knobs: Knobs, head: Head, context: int) -> Knobs:
    """The knobs with the head's folder, and how many tokens it drafts; fetches its weights.

    A head that says that it ends before the model does gets a copy with the model's length: its table of positions is
    as long as it says, and it is asked for the model's.

    Raises:
        EngineSetupError: it cannot be fetched, or does not reach as far as the context.
    """
    if head.positions is None or head.positions >= context:
        path = fetch_head(head.folder)
    elif head.can_extend_positions:
        path = extend_positions(head.folder, context)
    else:
        raise EngineSetupError(
            f"The head {head.folder.model} drafts up to position {head.positions}, and the context has {context}; set "
            f"max_seq_len={head.positions}."
        )
    return replace(knobs, speculative_model=os.fspath(path), max_draft_len=knobs.max_draft_len or head.draft_tokens)
