"""Converts inputs to tokens and generated tokens to text, for the engines that need it."""

from doherty_engine.text._answer import AnswerText
from doherty_engine.text._chat_template import (
    UNUSABLE_TEMPLATE,
    begins_answer,
    can_render,
    render_parts,
    template_failure,
    template_refusal,
)
from doherty_engine.text._control_tokens import ControlTokens, encode_exactly, looks_like_control
from doherty_engine.text._detokenizer import Utf8Detokenizer
from doherty_engine.text._logprobs import known_logprobs, token_logprob
from doherty_engine.text._model_folder import ModelFolder, find_model_folder
from doherty_engine.text._pieces import Piece, join
from doherty_engine.text._spelling import spell_byte_level, spell_sentence_piece
from doherty_engine.text._stop import StopMatcher
from doherty_engine.text._tokenizer import HuggingFaceTokenizer

__all__ = [
    "UNUSABLE_TEMPLATE",
    "AnswerText",
    "ControlTokens",
    "HuggingFaceTokenizer",
    "ModelFolder",
    "Piece",
    "StopMatcher",
    "Utf8Detokenizer",
    "begins_answer",
    "can_render",
    "encode_exactly",
    "find_model_folder",
    "join",
    "known_logprobs",
    "looks_like_control",
    "render_parts",
    "spell_byte_level",
    "spell_sentence_piece",
    "template_failure",
    "template_refusal",
    "token_logprob",
]
