"""The base of engines whose library takes and returns token ids.

An engine subclasses `TokenEngine` (start, stop, delivery of outputs), `TokenRequest` (one request) and `EngineContext`
(what its requests share). Tokenizing a request and ending an answer are implemented here, for all engines alike.
"""

from doherty_engine.tokens._answer import TokenAnswer
from doherty_engine.tokens._engine import TokenEngine
from doherty_engine.tokens._features import CONSTRAINTS, common_features
from doherty_engine.tokens._loader import ModelLoader
from doherty_engine.tokens._reader import PreparedInput, PromptReader
from doherty_engine.tokens._request import EngineContext, RequestOwner, TokenRequest
from doherty_engine.tokens._tokenizer import Tokenizer
from doherty_engine.tokens._turns import FairThreads

__all__ = [
    "CONSTRAINTS",
    "EngineContext",
    "FairThreads",
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
