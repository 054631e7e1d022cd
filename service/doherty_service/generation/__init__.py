"""The answers to requests: from the validated request to the engine's last output."""

from doherty_service.generation._answer import Answer, StreamedAnswer, WholeAnswer, settle
from doherty_service.generation._generations import RETRY_SECONDS, Generations
from doherty_service.generation._outputs import mark, merge
from doherty_service.generation._session import EngineSession
from doherty_service.generation._state import Load, State
from doherty_service.generation._writes import MessageWriter, WriteWatch

__all__ = [
    "RETRY_SECONDS",
    "Answer",
    "EngineSession",
    "Generations",
    "Load",
    "MessageWriter",
    "State",
    "StreamedAnswer",
    "WholeAnswer",
    "WriteWatch",
    "mark",
    "merge",
    "settle",
]
