"""Turns inputs into tokens and generated tokens into the text of an answer; shared by the engines that need it."""

from doherty_engine.text._answer import AnswerText
from doherty_engine.text._detokenizer import Utf8Detokenizer
from doherty_engine.text._logprobs import known_logprobs
from doherty_engine.text._model_folder import ModelFolder, find_model_folder
from doherty_engine.text._pieces import Piece, join
from doherty_engine.text._reader import InputReader, Reading
from doherty_engine.text._spelling import spell_byte_level, spell_sentence_piece
from doherty_engine.text._stop import StopMatcher
from doherty_engine.text._token_answer import TokenAnswer, Vocabulary
from doherty_engine.text._tokenizer import HuggingFaceTokenizer

__all__ = [
    "AnswerText",
    "HuggingFaceTokenizer",
    "InputReader",
    "ModelFolder",
    "Piece",
    "Reading",
    "StopMatcher",
    "TokenAnswer",
    "Utf8Detokenizer",
    "Vocabulary",
    "find_model_folder",
    "join",
    "known_logprobs",
    "spell_byte_level",
    "spell_sentence_piece",
]
