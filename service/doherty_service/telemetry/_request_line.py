"""The log line of a request."""

import json
import time

from doherty_service.telemetry._origin import origin
from doherty_service.telemetry._record import OTHER_RPC, RequestRecord

_MAX_METHOD_NAME = 100
"""Maximum number of characters of an unknown method's name."""


def request_line(record: RequestRecord) -> str:  # noqa: C901 - one step for each part of the line
    """Formats the line of a request that has ended, as JSON.

    It is formatted by hand because every request has such a line, and `json` would take several times as long. Only the
    caller's label and the names of unknown methods can contain characters that need escaping.
    """
    is_known = record.rpc != OTHER_RPC
    rpc = record.rpc if is_known else _escape(record.method.rpartition("/")[2][:_MAX_METHOD_NAME])
    label = record.request_id if record.request_id is record.key else _escape(record.request_id)
    level = "info" if is_known else "debug"
    parts = [f'{{"time": "{_now()}", "level": "{level}", "event": "request", {origin.json}']
    add = parts.append
    add(f'"rpc": "{rpc}", "request_id": "{label}", "attempt": {record.attempt}')
    if record.continued_tokens is not None:
        add(f'"continued_tokens": {record.continued_tokens}')
    if record.trace is not None:
        add(f'"trace_id": "{record.trace[0]}", "span_id": "{record.trace[1]}"')
    add(f'"code": "{record.status}", "peer": "{record.peer}"')
    if record.reason:
        add(f'"reason": "{record.reason}"')
    if record.abort_cause is not None:
        add(f'"abort_cause": "{record.abort_cause.label}"')
    if record.caller.name:
        add(f'"key": "{record.caller.name}"')
    if record.finish_reason:
        add(f'"finish_reason": "{record.finish_reason}"')
    if record.prompt_tokens is not None:
        add(f'"prompt_tokens": {record.prompt_tokens}, "output_tokens": {record.output_tokens}')
    if record.cached_tokens is not None:
        add(f'"cached_tokens": {record.cached_tokens}')
    if record.ends_at is not None:
        add(f'"deadline_ms": {(record.ends_at - record.received) * 1000:.3f}')
    for name, text in record.milliseconds():
        add(f'"{name}_ms": {text}')
    if record.engine_time_to_first_token is not None:
        add(f'"engine_time_to_first_token_ms": {record.engine_time_to_first_token * 1000:.3f}')
    if gaps := record.gaps:
        median, longest = gaps[(len(gaps) - 1) // 2] * 1000, gaps[-1] * 1000
        add(f'"inter_token_p50_ms": {median:.3f}, "inter_token_max_ms": {longest:.3f}')
    add(f'"duration_ms": {record.elapsed() * 1000:.3f}}}\n')
    return ", ".join(parts)


def _escape(text: str) -> str:
    return json.dumps(text)[1:-1]


class _Clock:
    """Formats the current time as ISO 8601 in UTC. Everything but the milliseconds is formatted once per second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def __call__(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{int((now - second) * 1000):03d}+00:00"


_now = _Clock()
