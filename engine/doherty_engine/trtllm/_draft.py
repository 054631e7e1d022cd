"""A draft head on the PyTorch backend: EAGLE-3 in the one-model mode.

In this mode, the combined model drafts and verifies in the same step, with CUDA graphs and the overlap scheduler. The
two-model mode will be removed in 1.4 (`EagleDecodingConfig` of `llmapi/llm_args.py`).
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
    """The knobs that follow from the option `draft`; empty without it.

    Raises:
        EngineSetupError: The options contradict each other.
    """
    if not options.draft:
        if options.draft_revision or options.draft_tokens is not None:
            raise EngineSetupError("The options for drafts need a draft head; name one with `draft`.")
        return {}
    if options.speculation or options.speculative_model or options.max_draft_len:
        raise EngineSetupError(
            "The option draft sets speculation, speculative_model and max_draft_len; leave those out, or draft."
        )
    return {"speculation": "eagle", "speculative_model": options.draft, "max_draft_len": options.draft_tokens}


def find_head(options: Options, model: ModelFolder) -> Head | None:
    """The draft head, if the deployment names one. Downloads its config.json and compares it with the model's.

    Raises:
        EngineSetupError: It is not an EAGLE-3 head, or is made for another model.
    """
    if not options.draft:
        return None
    head = read_head(find_model_folder(options.draft, options.draft_revision, extra="trtllm"), model)
    if head.method != EAGLE3:
        raise EngineSetupError(
            f"The head {head.folder.model} is a head of {head.method}, but TensorRT-LLM needs EAGLE-3; name another "
            "one, or use the engine vllm."
        )
    return head


def place_head(knobs: Knobs, head: Head, context: int) -> Knobs:
    """Adds the head's folder and number of draft tokens to the knobs. Downloads the head's weights.

    A head whose position table is shorter than the model's context is copied with a longer one, because the model also
    asks it for later positions.

    Raises:
        EngineSetupError: The download failed, or the head does not support the whole context.
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
