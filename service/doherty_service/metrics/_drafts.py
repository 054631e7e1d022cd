"""The metrics of speculative decoding, from what the engine counts."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric

from doherty_engine import Drafting


def draft_metrics(drafting: Drafting | None) -> Iterator[Metric]:
    """Three counters, which begin again with each start of the engine; without samples where nothing is drafted.

    Tokens a step are 1 + accepted / drafts: each step that verifies a draft adds one token of the model's own.
    """
    drafts = CounterMetricFamily(
        "doherty_drafts", "Drafts that the model verified, one a step and request; absent where nothing is drafted."
    )
    tokens = CounterMetricFamily("doherty_draft_tokens", "Tokens in those drafts.")
    accepted = CounterMetricFamily(
        "doherty_accepted_draft_tokens",
        "Tokens of drafts that became part of an answer, by their position in the draft, from 1.",
        labels=("position",),
    )
    if drafting is not None:
        drafts.add_metric((), drafting.drafts)
        tokens.add_metric((), drafting.draft_tokens)
        for position, count in enumerate(drafting.accepted_by_position, start=1):
            accepted.add_metric((str(position),), count)
    yield from (drafts, tokens, accepted)
