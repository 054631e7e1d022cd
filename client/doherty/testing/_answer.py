"""One answer of a fake server, from its request to its summary."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING
from uuid import uuid4

from doherty._core._results import Delta, Generation, ReplyMetadata, Timings, Usage
from doherty.testing._script import Reply, behind, deltas
from doherty.testing._to_wire import fill
from doherty.v1.answer_pb2 import Start, Summary
from doherty.v1.generation_service_pb2 import StreamGenerateResponse

if TYPE_CHECKING:
    from doherty.testing._request import Request


Admit = Callable[[str, ReplyMetadata], None]
"""Called with the id of a request, and the metadata to send, when the request is admitted."""


class CutOffError(Exception):
    """The answer ends without a summary or a status: the server dies, or the caller has left."""


class PlayedAnswer:
    """Sends the answer that a test defined, with its delays, and measures it like a server."""

    def __init__(self, request: "Request", reply: Reply, ended: threading.Event, received: float) -> None:
        """The answer begins now.

        Args:
            request: The request to answer.
            reply: The answer.
            ended: Set when the caller leaves or the server closes.
            received: When the request arrived (`monotonic`).
        """
        self._request = request
        self._reply = reply
        self._ended = ended
        self._received = received
        self._read = monotonic()
        self._admitted = 0.0
        self._first: float | None = None
        self._last: float | None = None
        self._held = 0
        self._tokens = 0
        answer = reply.answer
        self._scripted = answer if isinstance(answer, Generation) else Generation()
        self._request_id = request.request_id or self._scripted.request_id or uuid4().hex

    def messages(self, model: str, prompt_tokens: int, admit: Admit) -> Iterator[StreamGenerateResponse]:
        """The messages of a stream.

        Args:
            model: The id of the model, unless the reply or the request names one.
            prompt_tokens: The size of the prompt, unless the reply says it.
            admit: Called before the first message.

        Raises:
            CutOffError: The answer ends here.
            RpcError: The reply is an error.
        """
        reply, usage = self._reply, self._scripted.usage
        self._wait(reply.queue_delay)
        self._admitted = monotonic()
        scripted = deltas(reply.answer)
        if reply.error is not None and scripted == []:
            raise reply.error
        admit(self._request_id, self._scripted.metadata)
        start = Start(
            request_id=self._request_id,
            model=self._scripted.model or self._request.options.model or model,
            prompt_tokens=usage.prompt_tokens or prompt_tokens,
        )
        self._held, rest = behind(self._request.options.continue_from, iter(scripted))
        parts = list(rest) if isinstance(scripted, list) else rest
        last = len(parts) if isinstance(parts, list) else None
        message = StreamGenerateResponse(start=start)
        for number, part in enumerate(parts, start=1):
            self._wait_for_token()
            self._add(message, part)
            # If a delta is known to be the last one, the summary is in the same message.
            if number != last or self._breaks:
                yield message
                message = StreamGenerateResponse()
        self._complete(message, start)
        yield message

    @property
    def _breaks(self) -> bool:
        return self._reply.cut_off or self._reply.error is not None

    def _wait_for_token(self) -> None:
        self._wait(self._reply.first_token_delay if self._first is None else self._reply.token_delay)

    def _wait(self, seconds: float) -> None:
        if self._ended.wait(seconds) if seconds else self._ended.is_set():
            raise CutOffError

    def _add(self, message: StreamGenerateResponse, part: Delta) -> None:
        """Adds a delta, without the fields that were not requested."""
        options = self._request.options
        token_ids = part.token_ids if options.token_ids else None
        logprobs = part.logprobs if options.top_logprobs is not None else None
        fill(message.delta, replace(part, token_ids=token_ids, logprobs=logprobs))
        message.delta.SetInParent()
        self._tokens += part.token_count
        self._last = monotonic()
        if self._first is None:
            self._first = self._last

    def _complete(self, message: StreamGenerateResponse, start: Start) -> None:
        """Ends the answer.

        Raises:
            CutOffError: It is cut off.
            RpcError: It ends with an error.
        """
        if self._breaks:
            self._wait(self._reply.token_delay)
            raise self._reply.error or CutOffError
        message.summary.CopyFrom(self._summary(start))

    def _summary(self, start: Start) -> Summary:
        reply, request = self._scripted, self._request
        output_tokens = reply.usage.output_tokens or self._held + self._tokens
        usage = Usage(start.prompt_tokens, output_tokens, reply.usage.cached_tokens)
        timings = self._measured() if reply.timings == Timings() else reply.timings
        seed = request.seed if reply.seed is None and request.temperature != 0 else reply.seed
        return fill(Summary(), replace(reply, usage=usage, timings=timings, seed=seed))

    def _measured(self) -> Timings:
        first, last = self._first, self._last
        if first is None or last is None:
            return Timings(preprocess=self._read - self._received, queue=self._admitted - self._read, total=self._now())
        return Timings(
            preprocess=self._read - self._received,
            queue=self._admitted - self._read,
            time_to_first_token=first - self._received,
            time_to_last_token=last - self._received,
            total=self._now(),
            time_per_output_token=(last - first) / (self._tokens - 1) if self._tokens > 1 else None,
        )

    def _now(self) -> float:
        return monotonic() - self._received


def joined(messages: Iterator[StreamGenerateResponse]) -> StreamGenerateResponse:
    """Merges the messages of a stream. Ids and log probabilities are kept only if they are known for all tokens."""
    whole = StreamGenerateResponse()
    texts: list[str] = []
    tokens = 0
    for message in messages:
        texts.append(message.delta.text)
        tokens += message.delta.token_count
        whole.MergeFrom(message)  # appends to repeated fields, and replaces other fields
    delta = whole.delta
    delta.text, delta.token_count = "".join(texts), tokens
    for name in ("token_ids", "logprobs"):
        if len(getattr(delta, name)) != delta.token_count:
            delta.ClearField(name)
    return whole
