"""Sends frames that no client would send to a server, and checks the answers."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from support.conformance import Conversation, error_of
from support.fuzz.frames import frame_input, header_input, message_input
from support.http2 import ACK, END_STREAM, PREFACE, Kind, Setting, frame, raw_connection, settings, window_update
from support.raw_rpc import CODES

STREAMS = 40
"""The number of inputs that share a connection, if each input concerns a single stream."""
HANG_SECONDS = 30.0
_WINDOW = 1 << 30
GREETING = PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, _WINDOW)) + frame(Kind.SETTINGS, ACK)
_NEVER = {"INTERNAL", "UNKNOWN", "INTERNAL_ERROR", "HANG", "UNANSWERED", "CRASH"}
_PING = b"the last"


@dataclass
class Findings:
    """Counts how inputs were answered."""

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """May exceed the number of inputs: the server may answer an input of frames, and also end the connection."""
    failures: list[str] = field(default_factory=list)
    """The failures, each with the data that is needed to send the input again."""

    def add(self, other: "Findings") -> None:
        """Adds the findings about other inputs."""
        self.inputs += other.inputs
        self.outcomes += other.outcomes
        self.failures += other.failures

    def judge(self, outcome: str, what: str) -> None:
        """Counts an outcome, and records a failure if no caller should see it."""
        self.outcomes[outcome] += 1
        if not _NEVER.isdisjoint(outcome.split()):
            self.failures.append(f"{outcome}: {what}")


def send_streams(target: str, seed: str) -> Findings:
    """Sends damaged messages or headers on streams of one connection. The server must end every stream."""
    random, findings = Random(seed), Findings(STREAMS)  # noqa: S311 - to be repeated
    numbers = range(1, 2 * STREAMS, 2)
    inputs = {number: random.choice((message_input, header_input))(random, number) for number in numbers}
    waiting = set(numbers)
    with raw_connection(target) as connection:
        connection.limit(HANG_SECONDS)
        conversation = Conversation(connection)
        try:
            with suppress(ConnectionError):
                connection.send(GREETING, window_update(0, _WINDOW), *inputs.values(), frame(Kind.PING, payload=_PING))
            for received in conversation.frames():
                if received.kind == Kind.GOAWAY:
                    findings.judge(f"GOAWAY {error_of(received).name}", f"streams of {seed}")
                    findings.outcomes["ended with the connection"] += len(waiting) - 1
                    waiting.clear()
                if received.stream not in waiting:
                    continue
                if received.kind == Kind.RST_STREAM:
                    findings.judge(f"RST_STREAM {error_of(received).name}", f"{seed} {inputs[received.stream]!r}")
                elif received.flags & END_STREAM and received.kind in {Kind.HEADERS, Kind.DATA}:
                    findings.judge(
                        status_of(conversation.headers[received.stream]), f"{seed} {inputs[received.stream]!r}"
                    )
                else:
                    continue
                waiting.discard(received.stream)
                if not waiting:
                    break
        except TimeoutError:
            findings.judge("HANG", f"{len(waiting)} streams of {seed}: {[inputs[stream] for stream in waiting]!r}")
            return findings
    if waiting:
        findings.judge("UNANSWERED", f"{len(waiting)} streams of {seed}: {[inputs[stream] for stream in waiting]!r}")
    return findings


def send_frames(target: str, seed: str) -> Findings:
    """Sends an input of damaged frames on a connection. The server must close the connection after the input ends."""
    random, findings = Random(seed), Findings(1)  # noqa: S311 - to be repeated
    sent = frame_input(random)
    with raw_connection(target) as connection:
        connection.limit(HANG_SECONDS)
        conversation = Conversation(connection)
        outcome = "closed"
        try:
            with suppress(OSError):
                connection.send(GREETING, sent)
                connection.end()
            for received in conversation.frames():
                if received.kind in {Kind.GOAWAY, Kind.RST_STREAM}:
                    outcome = f"{Kind(received.kind).name} {error_of(received).name}"
                elif received.flags & END_STREAM and received.kind in {Kind.HEADERS, Kind.DATA}:
                    findings.judge(status_of(conversation.headers[received.stream]), f"{seed} {sent!r}")
        except TimeoutError:
            outcome = "HANG"
    findings.judge(outcome, f"{seed} {sent!r}")
    return findings


def status_of(fields: dict[str, str]) -> str:
    """Returns the gRPC status of an answer, or its HTTP status if it has no gRPC status."""
    if "grpc-status" in fields:
        return CODES[int(fields["grpc-status"])].name
    return f"HTTP {fields[':status']}"
