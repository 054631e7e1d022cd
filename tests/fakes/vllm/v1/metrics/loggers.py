"""Objects that receive the figures of every step."""

from abc import ABC, abstractmethod
from typing import Any

from .stats import IterationStats, SchedulerStats


class StatLoggerBase(ABC):
    """Receives the figures of an engine."""

    @abstractmethod
    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None: ...

    @abstractmethod
    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: Any | None = None,
        engine_idx: int = 0,
    ) -> None: ...

    @abstractmethod
    def log_engine_initialized(self) -> None: ...

    def log(self) -> None:  # noqa: B027 - as in vLLM
        pass

    def record_sleep_state(self, is_awake: int, level: int) -> None:  # noqa: B027 - as in vLLM
        pass


class AggregateStatLoggerBase(StatLoggerBase):
    """Receives the figures of all engines."""

    @abstractmethod
    def __init__(self, vllm_config: Any, engine_indexes: list[int]) -> None: ...


class PrometheusStatLogger(AggregateStatLoggerBase):
    """Would fill dozens of metrics; a test fails if this object is created."""

    def __init__(self, vllm_config: Any, engine_indexes: list[int] | None = None) -> None:
        raise AssertionError("vLLM's own metrics are collected although they are not used")

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: Any | None = None,
        engine_idx: int = 0,
    ) -> None: ...

    def log_engine_initialized(self) -> None: ...
