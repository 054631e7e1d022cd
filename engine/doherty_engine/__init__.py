"""Engines that generate text behind one Protocol, and the dataclasses that go in and come out.

This package knows nothing of gRPC. `create_engine` makes an engine by name; `Engine` says how to use it.
"""

from doherty_engine._budget import input_field, output_budget
from doherty_engine._engine import Drafting, Engine, Health, ModelInfo, RequestHandle, SamplingDefaults, StepSink
from doherty_engine._errors import (
    EngineError,
    EngineFailedError,
    EngineSetupError,
    InvalidInputError,
    UnsupportedError,
)
from doherty_engine._outputs import Finish, FinishReason, Speculation, Started, StepOutput, TokenLogprob
from doherty_engine._registry import (
    DEFAULT_ENGINE,
    create_engine,
    engine_names,
    engine_options,
    engine_profiles,
    prepare_engine,
    read_engine_options,
)
from doherty_engine._requests import (
    Choices,
    Constraint,
    Conversation,
    EngineRequest,
    Grammar,
    HeldPart,
    Input,
    JsonSchema,
    Message,
    RawText,
    Regex,
    Role,
    Sampling,
    Stopping,
    TokenIds,
)

__all__ = [
    "DEFAULT_ENGINE",
    "Choices",
    "Constraint",
    "Conversation",
    "Drafting",
    "Engine",
    "EngineError",
    "EngineFailedError",
    "EngineRequest",
    "EngineSetupError",
    "Finish",
    "FinishReason",
    "Grammar",
    "Health",
    "HeldPart",
    "Input",
    "InvalidInputError",
    "JsonSchema",
    "Message",
    "ModelInfo",
    "RawText",
    "Regex",
    "RequestHandle",
    "Role",
    "Sampling",
    "SamplingDefaults",
    "Speculation",
    "Started",
    "StepOutput",
    "StepSink",
    "Stopping",
    "TokenIds",
    "TokenLogprob",
    "UnsupportedError",
    "create_engine",
    "engine_names",
    "engine_options",
    "engine_profiles",
    "input_field",
    "output_budget",
    "prepare_engine",
    "read_engine_options",
]
