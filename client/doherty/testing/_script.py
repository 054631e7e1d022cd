"""What a test has a fake server answer."""

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
"""A text, a whole answer, or the deltas of a stream. A text is streamed word by word, and each word is a token. What a
Generation leaves at its default is filled in by the server."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that takes its time, or ends early. Delays are in seconds."""

    answer: Answer = ""
    _: KW_ONLY
    queue_delay: float = 0.0
    """Until the server admits the request."""
    first_token_delay: float = 0.0
    """From then to the first token."""
    token_delay: float = 0.0
    """From one delta to the next, and from the last one to the error or the loss, if there is one."""
    error: RpcError | None = None
    """What the request fails with, after the deltas if there are any. A reason that it lacks is that of its class."""
    cut_off: bool = False
    """Whether the connection is lost after the deltas, as when a server dies. The next request finds the server."""

    def __post_init__(self) -> None:
        if self.error is not None and self.cut_off:
            raise ValueError("error= and cut_off= exclude each other: an answer ends in one way.")
        _check(self.answer)


Script = Answer | Reply | RpcError | Callable[[Request], Answer | Reply | RpcError]
"""An answer, a Reply, an error, or a function that makes one of these of the request. The function runs in a thread of
the server; it may be a generator of deltas, and may raise an RpcError."""


class Replies:
    """The requests that came, and what the next ones get. Threads may share it."""

    def __init__(self, default: Script | None) -> None:
        """`default` is for all requests for which there is nothing else; None refuses them."""
        self.requests: list[Request] = []
        """Those that came, in their order."""
        self._default = default
        self._queue: deque[Script] = deque()
        self._lock = threading.Lock()
        if default is not None:
            _check(default)

    def add(self, scripts: Iterable[Script]) -> None:
        """Adds the replies to the next requests.

        Raises:
            TypeError: One of them is no reply.
        """
        for script in scripts:
            _check(script)
            self._queue.append(script)

    def take(self, request: Request) -> Reply:
        """The reply to a request, which is recorded.

        Raises:
            RpcError: There is none, or the function raised it.
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
            f"{script!r} is no reply: that is a str, a Generation, deltas, a Reply, an RpcError or a function."
        )


def words(text: str) -> list[str]:
    """A text as its tokens: words, each with the white space before it, and the last one also with that behind it."""
    return re.findall(r"\s*\S+(?:\s+\Z)?|\A\s+\Z", text)


def deltas(answer: Answer) -> Iterable[Delta]:
    """The deltas of an answer: a list, where the answer is not an iterator."""
    if isinstance(answer, Generation) and (answer.token_ids or answer.logprobs):
        # Which of them belong to which word is not known.
        count = len(answer.token_ids or answer.logprobs or ())
        return [Delta(answer.text, answer.token_ids, answer.logprobs, count)]
    if isinstance(answer, str | Generation):
        return [Delta(word) for word in words(str(answer))]
    parts = (Delta(part) if isinstance(part, str) else part for part in answer)
    return parts if isinstance(answer, Iterator) else list(parts)


def behind(held: str | TokenIds | None, parts: Iterator[Delta]) -> tuple[int, Iterator[Delta]]:
    """The tokens that the caller holds, and the deltas behind them: all deltas, if they do not begin with that part."""
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
    """What is new of the last delta; None if the deltas are another answer's."""
    if isinstance(held, TokenIds):
        known = [token for part in parts for token in part.token_ids or ()]
        if known != list(held.ids)[: len(known)]:
            return None
        return Delta() if len(known) == len(held.ids) else _MORE_IS_HELD
    text = "".join(part.text for part in parts)
    if text.startswith(held):
        return replace(parts[-1], text=text[len(held) :], token_ids=None, logprobs=None)
    return _MORE_IS_HELD if held.startswith(text) else None
