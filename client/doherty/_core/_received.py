"""The received parts of a streamed answer."""

from typing import TYPE_CHECKING

from doherty._core._from_wire import generation_from_parts, logprobs_from_wire
from doherty._core._results import Delta, Generation, ReplyMetadata

if TYPE_CHECKING:
    from doherty._core._details import TokenLogprob
    from doherty.v1.answer_pb2 import Delta as WireDelta
    from doherty.v1.answer_pb2 import Start, Summary


class ReceivedAnswer:
    """Collects the parts of one answer over all attempts.

    It copies submessages, because they would keep the whole message in memory, and a message of MultiplexGenerate
    contains parts of many answers.
    """

    # Defaults are attributes of the class, as in CallAttempts.
    start: "Start | None" = None
    summary: "Summary | None" = None
    _ids_known = True
    _logprobs_known = True

    def __init__(self, *, wants_ids: bool, wants_logprobs: bool) -> None:
        """The arguments say what the caller has requested besides the text."""
        self._wants_ids = wants_ids
        self._wants_logprobs = wants_logprobs
        self._texts: list[str] = []
        self._ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []

    @property
    def text(self) -> str:
        """The received text."""
        return "".join(self._texts)

    @property
    def known_ids(self) -> tuple[int, ...] | None:
        """The ids of the received tokens; None if they are not all known."""
        return tuple(self._ids) or None if self._ids_known else None

    @property
    def token_ids(self) -> tuple[int, ...] | None:
        """`known_ids` if the caller has requested ids, else None."""
        return self.known_ids if self._wants_ids else None

    def begin(self, start: "Start") -> None:
        """Adds the first part of an attempt's answer."""
        self.start = type(start)()
        self.start.CopyFrom(start)

    def complete(self, summary: "Summary") -> None:
        """Adds the last part."""
        self.summary = type(summary)()
        self.summary.CopyFrom(summary)

    def add(self, delta: "WireDelta", text: str, count: int) -> Delta:
        """Adds a delta with this text and number of tokens, and returns it as the caller gets it."""
        token_ids = tuple(delta.token_ids[:]) or None  # a slice is faster than an iterator over a field
        logprobs = logprobs_from_wire(delta.logprobs) if self._wants_logprobs else None
        self._texts.append(text)
        if token_ids is not None:
            self._ids += token_ids
        elif count:
            self._ids_known = False
        if logprobs is not None:
            self._logprobs += logprobs
        elif count:
            self._logprobs_known = False
        return Delta(text, token_ids if self._wants_ids else None, logprobs, count)

    def generation(self, elapsed: float | None, metadata: ReplyMetadata) -> Generation[None] | None:
        """Returns the whole answer; None if it is not complete. `elapsed` is as in `generation_from_parts`."""
        if self.start is None or self.summary is None:
            return None
        return generation_from_parts(
            self.start,
            self.summary,
            elapsed,
            metadata=metadata,
            text=self.text,
            token_ids=self.token_ids,
            logprobs=tuple(self._logprobs) or None if self._logprobs_known else None,
        )
