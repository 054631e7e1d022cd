"""The replies that a test defines for a fake server."""

import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, replace
from itertools import chain
from typing import Final

from doherty._core._errors import InternalError, RpcError
from doherty._core._prompt import TokenIds
from doherty._core._results import Delta, Generation
from doherty.testing._request import Request

Answer = str | Generation | Iterable[str | Delta]
"""A text, a whole answer, or the deltas of a stream. A text is streamed word by word, and each word is a token. The
server fills in the fields of a Generation that you leave at their default."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with delays, or one that ends early. Delays are in seconds."""

    answer: Answer = ""
    _: KW_ONLY
    queue_delay: float = 0.0
    """The time until the server admits the request."""
    first_token_delay: float = 0.0
    """The time from the admission to the first token."""
    token_delay: float = 0.0
    """The time from one delta to the next, and from the last delta to the error or the loss, if there is one."""
    error: RpcError | None = None
    """The error that ends the answer after the deltas. If it has no reason, its class determines the reason."""
    cut_off: bool = False
    """Whether the connection is closed after the deltas, as if the server had died. New requests are accepted."""

    def __post_init__(self) -> None:
        if self.error is not None and self.cut_off:
            raise ValueError("error= and cut_off= exclude each other: an answer ends in one way.")
        _check(self.answer)


Script = Answer | Reply | RpcError | Callable[[Request], Answer | Reply | RpcError]
"""An answer, a Reply, an error, or a function that returns one of these for a Request. The function runs in a thread of
the server. It may be a generator of deltas, and may raise an RpcError."""


class Replies:
    """The received requests, and the replies to the next ones. Threads may share it."""

    def __init__(self, default: Script | None) -> None:
        """`default` is the reply to all requests without a reply of their own. With None, such requests fail."""
        self.requests: list[Request] = []
        """The received requests, in order."""
        self._default = default
        self._queue: deque[Script] = deque()
        self._lock = threading.Lock()
        if default is not None:
            _check(default)

    def add(self, scripts: Iterable[Script]) -> None:
        """Adds the replies to the next requests.

        Raises:
            TypeError: One of them is not a reply.
        """
        for script in scripts:
            _check(script)
            self._queue.append(script)

    def take(self, request: Request) -> Reply:
        """Records a request, and returns the reply to it.

        Raises:
            RpcError: There is no reply, or the function raised the error.
        """
        with self._lock:
            self.requests.append(request)
            script = self._queue.popleft() if self._queue else self._default
        if script is None:
            raise InternalError("No reply is scripted for this request: use server.reply(...), or FakeServer(...)")
        made = script(request) if callable(script) else script
        if isinstance(made, RpcError):
            return Reply(error=made)
        return made if isinstance(made, Reply) else Reply(made)


def _check(script: object) -> None:
    known = isinstance(script, str | Generation | Reply | RpcError | Iterable) or callable(script)
    if not known or isinstance(script, type | bytes):
        raise TypeError(
            f"{script!r} is no reply; a reply is a str, a Generation, deltas, a Reply, an RpcError or a function."
        )


def words(text: str) -> list[str]:
    """Splits a text into its tokens, which are words with the white space before them (and after the last one)."""
    return re.findall(r"\s*\S+(?:\s+\Z)?|\A\s+\Z", text)


def deltas(answer: Answer) -> Iterable[Delta]:
    """Returns the deltas of an answer, as a list unless the answer is an iterator."""
    if isinstance(answer, Generation) and (answer.token_ids or answer.logprobs):
        # It is not known which ids and log probabilities belong to which word.
        count = len(answer.token_ids or answer.logprobs or ())
        return [Delta(answer.text, answer.token_ids, answer.logprobs, count)]
    if isinstance(answer, str | Generation):
        return [Delta(word) for word in words(str(answer))]
    parts = (Delta(part) if isinstance(part, str) else part for part in answer)
    return parts if isinstance(answer, Iterator) else list(parts)


def behind(held: str | TokenIds | None, parts: Iterator[Delta]) -> tuple[int, Iterator[Delta]]:
    """Returns the number of tokens that the caller holds, and the deltas after them.

    If the deltas do not begin with the part that the caller holds, returns all of them.
    """
    if held is None:
        return 0, parts
    skipped: list[Delta] = []
    for part in parts:
        skipped.append(part)
        rest = _rest(held, skipped)
        if rest is None:
            break
        if rest is not _MORE_IS_HELD:
            left = [rest] if rest.text else []
            return sum(part.token_count for part in skipped[: -1 if left else None]), chain(left, parts)
    count = len(held.ids) if isinstance(held, TokenIds) else len(words(held))
    return count, chain(skipped, parts)


_MORE_IS_HELD: Final = Delta()


def _rest(held: str | TokenIds, parts: list[Delta]) -> Delta | None:
    """Returns the part of the last delta that the caller does not hold; None if the deltas belong to another answer."""
    if isinstance(held, TokenIds):
        known = [token for part in parts for token in part.token_ids or ()]
        if known != list(held.ids)[: len(known)]:
            return None
        return Delta() if len(known) == len(held.ids) else _MORE_IS_HELD
    text = "".join(part.text for part in parts)
    if text.startswith(held):
        return replace(parts[-1], text=text[len(held) :], token_ids=None, logprobs=None)
    return _MORE_IS_HELD if held.startswith(text) else None
