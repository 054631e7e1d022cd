"""The base of engines that give a library token ids and get token ids back.

An engine subclasses `TokenEngine` (start, stop, delivery of outputs), `TokenRequest` (one request) and `EngineContext`
(what requests share). Reading a request and ending an answer is done here, so that it is the same for all of them.
"""

from doherty_engine.tokens._answer import TokenAnswer
from doherty_engine.tokens._engine import TokenEngine
from doherty_engine.tokens._features import CONSTRAINTS, common_features
from doherty_engine.tokens._loader import ModelLoader
from doherty_engine.tokens._reader import PreparedInput, PromptReader
from doherty_engine.tokens._request import EngineContext, RequestOwner, TokenRequest
from doherty_engine.tokens._tokenizer import Tokenizer

__all__ = [
    "CONSTRAINTS",
    "EngineContext",
    "ModelLoader",
    "PreparedInput",
    "PromptReader",
    "RequestOwner",
    "TokenAnswer",
    "TokenEngine",
    "TokenRequest",
    "Tokenizer",
    "common_features",
]
