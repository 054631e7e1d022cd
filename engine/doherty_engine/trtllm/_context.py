"""What all requests of TensorRT-LLM share."""

from dataclasses import dataclass
from typing import Any

from doherty_engine.text import HuggingFaceTokenizer
from doherty_engine.tokens import EngineContext
from doherty_engine.trtllm._deployment import Deployment
from doherty_engine.trtllm._grammars import GrammarTrial
from doherty_engine.trtllm._sampling import SamplingWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class TrtLlmContext(EngineContext):
    """A model that is loaded."""

    deployment: Deployment
    llm: Any
    tokenizer: HuggingFaceTokenizer
    sampling: SamplingWriter
    adapters: dict[str, Any]
    """LoRARequests by name."""
    grammars: GrammarTrial | None
    """Tries constraints; None where there are none."""
    request_error: type[Exception]
    """What TensorRT-LLM raises where only the one request has failed."""

    @property
    def drafts_per_step(self) -> int:
        """How many tokens of a step's drafts can be accepted, where that is always the same; else 0."""
        # Of lookahead's drafts one n-gram can be accepted a step, without its first token, which is the model's.
        lookahead = self.deployment.knobs.lookahead
        return lookahead[1] - 1 if lookahead else 0

    @property
    def tells_cached_tokens(self) -> bool:
        """Whether results say how many tokens of the prompt were in the KV cache."""
        return not self.deployment.is_built

    def close(self) -> None:
        """Gives everything back; waits for TensorRT-LLM's worker, however long that takes."""
        if self.grammars is not None:
            self.grammars.close()
        self.llm.shutdown()
