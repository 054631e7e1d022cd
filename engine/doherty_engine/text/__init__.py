"""Turns generated tokens into the text of an answer; shared by the engines that need it."""

from doherty_engine.text._answer import AnswerText
from doherty_engine.text._detokenizer import Utf8Detokenizer
from doherty_engine.text._pieces import Piece, join
from doherty_engine.text._stop import StopMatcher

__all__ = ["AnswerText", "Piece", "StopMatcher", "Utf8Detokenizer", "join"]
