"""Who is told the figures of every step."""

from abc import ABC, abstractmethod
from typing import Any

from .stats import IterationStats, SchedulerStats


class StatLoggerBase(ABC):
    """Takes figures."""

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
    """Takes those of all engines."""

    @abstractmethod
    def __init__(self, vllm_config: Any, engine_indexes: list[int]) -> None: ...


class PrometheusStatLogger(AggregateStatLoggerBase):
    """Would fill dozens of metrics; a test fails where this one is made."""

    def __init__(self, vllm_config: Any, engine_indexes: list[int] | None = None) -> None:
        raise AssertionError("vLLM's own metrics are kept although nobody reads them")

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: Any | None = None,
        engine_idx: int = 0,
    ) -> None: ...

    def log_engine_initialized(self) -> None: ...
