"""The number of drafts by the number of running requests. Each draft is one more token to verify in the same step."""

AUTO = "auto"
_MAX_VERIFIED = 256
"""An H100 computes about this many tokens per step in the time that it needs to read the weights of an 8B model. With
64 streams, three drafts were 34 % faster than none, and nine drafts half as fast (benchmarks/gpu/NOTES.md)."""

Schedule = tuple[tuple[int, int], ...]
"""Pairs of a maximum number of streams and their number of drafts. The last pair also applies to more streams."""


def parse_schedule(text: str) -> Schedule | str:
    """Parses "auto", or STREAMS:DRAFTS separated by commas, such as "8:5,64:2"."""
    if text == AUTO:
        return AUTO
    try:
        pairs = tuple((int(streams), int(drafts)) for streams, drafts in (pair.split(":") for pair in text.split(",")))
    except ValueError:
        raise ValueError("it must be auto, or STREAMS:DRAFTS separated by commas, such as 8:5,64:2") from None
    if any(later <= earlier for (earlier, _), (later, _) in zip(((0, 0), *pairs), pairs, strict=False)):
        raise ValueError("its numbers of streams must rise from 1 on")
    if any(drafts < 0 for _, drafts in pairs):
        raise ValueError("its numbers of drafts must be 0 or above")
    return pairs


def automatic_schedule(draft_tokens: int, slots: int) -> Schedule:
    """Halves the drafts (down to one) with more streams, so that a step verifies at most `_MAX_VERIFIED` tokens."""
    pairs: list[tuple[int, int]] = []
    drafts = draft_tokens
    while True:
        streams = slots if drafts == 1 else min(_MAX_VERIFIED // (drafts + 1), slots)
        if streams:
            pairs.append((streams, drafts))
        if streams == slots:
            return tuple(pairs)
        drafts = (drafts + 1) // 2


def as_ranges(schedule: Schedule) -> list[list[int]]:
    """Converts a schedule to vLLM's `num_speculative_tokens_per_batch_size`: first and last batch size, and drafts."""
    firsts = [1, *(streams + 1 for streams, _ in schedule)]
    return [[first, streams, drafts] for first, (streams, drafts) in zip(firsts, schedule, strict=False)]
