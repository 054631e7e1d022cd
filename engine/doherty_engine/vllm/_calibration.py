"""The texts that activations are measured with: short conversations of kinds that people have with a model.

A static scale has to cover what comes out of each layer. Its largest values come from the first tokens of a prompt and
from a few directions that all texts share, so that dozens of texts do; which they are matters little.
"""

import json
from pathlib import Path

from doherty_engine._requests import Message, Role
from doherty_engine.text import HuggingFaceTokenizer

_TALKS = Path(__file__).with_name("calibration.json")
"""Pairs of question and answer, in several languages, prose, code and figures."""


def calibration_sequences(tokenizer: HuggingFaceTokenizer) -> list[list[int]]:
    """Token ids, one list a conversation: each alone, and all of them joined into one long conversation.

    A model without a chat template gets plain texts.
    """
    talks: list[list[str]] = json.loads(_TALKS.read_text(encoding="utf-8"))
    if not tokenizer.has_chat_template:
        return [tokenizer.encode(f"{question}\n\n{answer}") for question, answer in talks]
    turns = [(Message(Role.USER, question), Message(Role.ASSISTANT, answer)) for question, answer in talks]
    return [*(tokenizer.render(talk) for talk in turns), tokenizer.render([turn for talk in turns for turn in talk])]
