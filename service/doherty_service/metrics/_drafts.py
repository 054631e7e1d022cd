"""The metrics of speculative decoding, from the engine's counters."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric

from doherty_engine import Drafting


def draft_metrics(drafting: Drafting | None) -> Iterator[Metric]:
    """Yields three counters, which restart from 0 with the engine. Without speculative decoding they have no samples.

    The number of tokens per step is 1 + accepted / drafts: each step that verifies a draft also adds one token that the
    model generated itself.
    """
    drafts = CounterMetricFamily(
        "doherty_drafts",
        "Drafts that the model verified, one per step and request. Absent without speculative decoding.",
    )
    tokens = CounterMetricFamily("doherty_draft_tokens", "Tokens in verified drafts.")
    accepted = CounterMetricFamily(
        "doherty_accepted_draft_tokens",
        "Draft tokens that the model accepted, by position in the draft, starting at 1.",
        labels=("position",),
    )
    if drafting is not None:
        drafts.add_metric((), drafting.drafts)
        tokens.add_metric((), drafting.draft_tokens)
        for position, count in enumerate(drafting.accepted_by_position, start=1):
            accepted.add_metric((str(position),), count)
    yield from (drafts, tokens, accepted)
