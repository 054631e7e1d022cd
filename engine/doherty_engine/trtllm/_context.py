"""What all requests of a TensorRT-LLM engine share."""

from dataclasses import dataclass
from typing import Any

from doherty_engine.text import HuggingFaceTokenizer
from doherty_engine.tokens import EngineContext
from doherty_engine.trtllm._deployment import Deployment
from doherty_engine.trtllm._grammars import GrammarTrial
from doherty_engine.trtllm._sampling import SamplingWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class TrtLlmContext(EngineContext):
    """A loaded model."""

    deployment: Deployment
    llm: Any
    tokenizer: HuggingFaceTokenizer
    sampling: SamplingWriter
    adapters: dict[str, Any]
    """LoRARequests by name."""
    grammars: GrammarTrial | None
    """Compiles constraints on trial; None if constraints are not supported."""
    request_error: type[Exception]
    """Raised by TensorRT-LLM if only a single request has failed."""

    @property
    def drafts_per_step(self) -> int:
        """The number of draft tokens that can be accepted per step, if it is constant; else 0."""
        # Lookahead can accept one n-gram per step, except its first token, which comes from the model itself.
        lookahead = self.deployment.knobs.lookahead
        return lookahead[1] - 1 if lookahead else 0

    @property
    def reports_cached_tokens(self) -> bool:
        """Whether results contain the number of prompt tokens that were in the KV cache."""
        return not self.deployment.is_built

    def close(self) -> None:
        """Frees all resources. Waits for TensorRT-LLM's worker without a timeout."""
        if self.grammars is not None:
            self.grammars.close()
        self.llm.shutdown()
