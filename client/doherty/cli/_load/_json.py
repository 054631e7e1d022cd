"""A load as `doherty bench --json` prints it."""

from dataclasses import asdict
from typing import Any, Final

from doherty import __version__
from doherty.cli._load._run import LoadOptions, LoadResult, Side
from doherty.cli._load._statistics import quantiles
from doherty.cli._load._summary import (
    begun_and_complete,
    client_quantiles,
    errors,
    ratios,
    server_quantiles,
    throughput,
    turned_away,
)
from doherty.cli._report import THRESHOLD

SCHEMA: Final = """\
--json of a load: one object. Times are in seconds; unknown values are null.

\b
load          loop ("closed" or "open"), concurrency, rate, requests, duration,
              block, warm_up, seed, streaming, max_output_tokens, prompts
begun         the start, as ISO 8601; client_version is that of this command
interrupted   whether Ctrl-C ended it early
targets       one object for each target:
  target, model, engine, engine_version, server_version
  requests, answers, output_tokens, seconds, answers_per_second, tokens_per_second
  client      time_to_first_token, inter_token_latency, time_per_output_token,
              time_to_last_token, total: p50, p90 and p99 of each, measured from
              the moment at which the request was due
  server      queue, time_to_first_token, time_per_output_token,
              time_to_last_token, total: the same of the same answers, as
              measured by the server
  outside_server    p50, p90, p99 of the client's total, measured from when the
              request was sent, minus the server's total
  late        p50, p90, p99 of the time between when a request was due and sent
  within_threshold  threshold, and the numbers of answers whose
              time_to_first_token and total (the client's) were within it
  errors      a list of code, reason and count
  turned_away refusals, and aborts by cause, of all callers of the server
ratios        with --compare: medians of the client's times, B over A; each has
              ratio, low and high (the 95 % interval)
generator     messages, cpu, cpu_share (of one core), cpu_per_message, send_wait
              and loop_lag (p50, p90, p99), mean_loop_lag, per_time (an
              estimate of what the generator adds to each measured time)
"""
"""The description of the JSON in the help."""


def run_as_json(run: LoadResult) -> dict[str, Any]:
    """Returns the results of a load in the form that SCHEMA describes."""
    result: dict[str, Any] = {
        "load": _load(run.load),
        "begun": run.begun.isoformat(timespec="seconds"),
        "client_version": __version__,
        "interrupted": run.interrupted,
        "targets": [_side(side) for side in run.sides],
    }
    if len(run.sides) > 1:
        result["ratios"] = {name: None if ratio is None else asdict(ratio) for name, ratio in ratios(run).items()}
    overhead = run.overhead
    result["generator"] = {
        "cpu": overhead.cpu,
        "cpu_share": overhead.cpu_share,
        "cpu_per_message": overhead.cpu_per_message,
        "send_wait": asdict(overhead.send_wait),
        "loop_lag": asdict(overhead.loop_lag),
        "mean_loop_lag": overhead.mean_loop_lag,
        "per_time": overhead.per_time,
        "messages": overhead.messages,
    }
    return result


def _load(load: LoadOptions) -> dict[str, Any]:
    return {
        "loop": "closed" if load.rate is None else "open",
        "concurrency": load.concurrency if load.rate is None else None,
        "rate": load.rate,
        "requests": load.requests,
        "duration": load.duration,
        "block": load.block,
        "warm_up": load.warm_up,
        "seed": load.seed,
        "streaming": load.streaming,
        "max_output_tokens": load.max_output_tokens,
        "prompts": len(load.prompts),
    }


def _side(side: Side) -> dict[str, Any]:
    answers = side.answers
    answers_per_second, tokens_per_second = throughput(side)
    begun, complete = begun_and_complete(side)
    refused = turned_away(side)
    return {
        "target": side.target,
        "model": side.model.model,
        "engine": side.model.engine,
        "engine_version": side.model.engine_version,
        "server_version": side.model.server_version,
        "requests": len(side.samples),
        "answers": len(answers),
        "output_tokens": sum(sample.output_tokens for sample in answers),
        "seconds": side.seconds,
        "answers_per_second": answers_per_second,
        "tokens_per_second": tokens_per_second,
        "client": {name: asdict(times) for name, times in client_quantiles(answers).items()},
        "server": {name: asdict(times) for name, times in server_quantiles(answers).items()},
        "outside_server": asdict(quantiles(sample.outside for sample in answers)),
        "late": asdict(quantiles(sample.late for sample in side.samples)),
        "within_threshold": {"threshold": THRESHOLD, "time_to_first_token": begun, "total": complete},
        "errors": [{"code": code, "reason": reason, "count": number} for code, reason, number in errors(side)],
        "turned_away": None if refused is None else {"refusals": refused[0], "aborts": refused[1]},
    }
