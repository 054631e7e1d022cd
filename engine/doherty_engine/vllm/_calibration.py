"""The texts for calibration: typical short conversations between people and a model.

A static scale has to cover the activations of a layer. The largest activations come from the first tokens of a prompt
and from a few directions that all texts share. So dozens of texts are enough, and the choice of texts matters little.
"""

import json
from pathlib import Path

from doherty_engine._requests import Message, Role
from doherty_engine.text import HuggingFaceTokenizer

_CONVERSATIONS = Path(__file__).with_name("calibration.json")
"""Pairs of question and answer: prose in several languages, code and numbers."""


def calibration_sequences(tokenizer: HuggingFaceTokenizer) -> list[list[int]]:
    """The token ids of each conversation, and of all of them joined into one long conversation.

    Models without a chat template get plain text.
    """
    pairs: list[list[str]] = json.loads(_CONVERSATIONS.read_text(encoding="utf-8"))
    if not tokenizer.has_chat_template:
        return [tokenizer.encode(f"{question}\n\n{answer}") for question, answer in pairs]
    conversations = [(Message(Role.USER, question), Message(Role.ASSISTANT, answer)) for question, answer in pairs]
    joined = [message for conversation in conversations for message in conversation]
    return [tokenizer.render(conversation) for conversation in (*conversations, joined)]
