"""Encodes answers as VllmEngine's messages."""

from collections.abc import Sequence

from google.protobuf.message import Message
from smg_grpc_proto.generated import vllm_engine_pb2 as vllm

from doherty_engine import Finish, FinishReason, StepOutput, TokenLogprob
from doherty_service.generation import Answer, StreamedAnswer, WholeAnswer, mark
from doherty_service.telemetry import RequestRecord

_FINISH_REASONS = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TIME_LIMIT: "length",
}


class GatewayStream(StreamedAnswer):
    """A streamed answer: chunks, then a `complete` message."""

    def __init__(self, record: RequestRecord) -> None:
        super().__init__(record)
        self._ids: list[int] = []

    def put(self, output: StepOutput) -> None:
        """Takes an output. Skips the shortcut of StreamedAnswer, which encodes messages of the contract."""
        Answer.put(self, output)

    def _take(self) -> StepOutput:
        output = super()._take()
        if output.finish is None or not output.token_count:
            return output
        self._unread.insert(0, StepOutput(output.key, finish=output.finish))
        return output._replace(finish=None)

    def _message(self, output: StepOutput) -> bytes:
        mark(self.record, output)
        if output.finish is not None:
            return encode(_complete(output.finish, self._ids, self))
        if not output.token_count:
            return b""
        ids = _known_ids(output)
        self._ids += ids
        reply = vllm.GenerateResponse()
        reply.chunk.token_ids.extend(ids)
        reply.chunk.prompt_tokens = self.record.prompt_tokens or 0
        reply.chunk.completion_tokens = len(ids)  # of this chunk only, as in vLLM's server: SMG adds them up
        _put_logprobs(reply.chunk.output_logprobs, output.logprobs)
        return encode(reply)


def encode(message: Message) -> bytes:
    """Encodes a message."""
    return message.SerializeToString()


def whole_message(answer: WholeAnswer) -> bytes:
    """The `complete` message of an answer that is not streamed."""
    output = answer.output()
    if output.finish is None:
        raise AssertionError("the answer has not ended")
    reply = _complete(output.finish, _known_ids(output), answer)
    _put_logprobs(reply.complete.output_logprobs, output.logprobs)
    return encode(reply)


def _known_ids(output: StepOutput) -> Sequence[int]:
    """The token ids of an output, which the gateway detokenizes.

    Raises:
        RuntimeError: The engine does not report them.
    """
    if output.token_ids is None and output.token_count:
        raise RuntimeError("the engine does not report the token ids, which a gateway needs to make text")
    return output.token_ids or ()


def _complete(finish: Finish, ids: Sequence[int], answer: Answer) -> vllm.GenerateResponse:
    reply = vllm.GenerateResponse()
    complete = reply.complete
    complete.output_ids.extend(ids)
    complete.finish_reason = _FINISH_REASONS[finish.reason]
    complete.prompt_tokens = answer.record.prompt_tokens or 0
    complete.completion_tokens = finish.output_tokens
    complete.cached_tokens = finish.cached_tokens or 0
    if finish.stop_text is not None:
        complete.matched_stop_str = finish.stop_text
    elif finish.stop_token_id in answer.request.stopping.stop_token_ids:
        complete.matched_token_id = finish.stop_token_id or 0
    if finish.speculation is not None:
        complete.spec_draft_tokens = finish.speculation.draft_tokens
        complete.spec_accepted_tokens = finish.speculation.accepted_tokens
    return reply


def _put_logprobs(message: vllm.OutputLogProbs, logprobs: Sequence[TokenLogprob] | None) -> None:
    for token in logprobs or ():
        message.token_logprobs.append(token.logprob)
        message.token_ids.append(token.token_id)
        message.top_logprobs.add(
            values=[other.logprob for other in token.top], token_ids=[other.token_id for other in token.top]
        )
