"""The messages of one answer, part by part."""

from dataclasses import dataclass

from doherty.v1 import generation_service_pb2 as wire
from doherty_engine import EngineRequest, ModelInfo, StepOutput
from doherty_service.latency import Call
from doherty_service.translation._answers import put_start, put_summary, token_logprobs


@dataclass(slots=True)
class AnswerMessages:
    """Makes the messages of one answer, each from what the engine gave since the one before."""

    call: Call
    model: ModelInfo
    asked: EngineRequest
    is_begun: bool = False
    """Whether the first of them was made."""

    def put(self, output: StepOutput, reply: wire.StreamGenerateResponse) -> bool:
        """Puts a part into an empty message, and tells whether there was one.

        That the prompt has been read is told together with the first token. Filled in place, a message costs half of
        what it costs to be put together.
        """
        has_delta = output.token_count or output.text
        if not has_delta and output.finish is None:
            return False
        if not self.is_begun:
            self.is_begun = True
            put_start(reply.start, self.call, self.model)
        if has_delta:
            delta = reply.delta
            delta.text = output.text
            delta.token_count = output.token_count
            if output.token_ids:
                delta.token_ids.extend(output.token_ids)
            if output.logprobs:
                delta.logprobs.extend(token_logprobs(output.logprobs))
        if output.finish is not None:
            put_summary(reply.summary, output.finish, self.asked, self.call, self.model)
        return True

    def whole(self, output: StepOutput) -> wire.GenerateResponse:
        """Makes the reply to Generate out of all of the answer."""
        if output.finish is None:
            raise AssertionError("an answer without an end is not whole")
        reply = wire.GenerateResponse(text=output.text, token_ids=output.token_ids or ())
        put_start(reply.start, self.call, self.model)
        if output.logprobs:
            reply.logprobs.extend(token_logprobs(output.logprobs))
        put_summary(reply.summary, output.finish, self.asked, self.call, self.model)
        return reply
