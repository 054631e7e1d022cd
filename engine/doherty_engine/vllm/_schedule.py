"""How many tokens are drafted, by how many requests run: each draft is a token more to verify in the same step."""

AUTO = "auto"
_MOST_VERIFIED = 256
"""Up to about so many tokens a step an H100 computes in the time that it takes to read an 8B's weights: 64 streams with
three drafts were 34 % faster than without, with nine drafts half as fast (benchmarks/gpu/NOTES.md)."""

Schedule = tuple[tuple[int, int], ...]
"""Pairs: up to how many streams, how many drafts. More streams than in the last pair get as many as in it."""


def parse_schedule(text: str) -> Schedule | str:
    """Reads "auto", or STREAMS:DRAFTS with commas between, as "8:5,64:2"."""
    if text == AUTO:
        return AUTO
    try:
        pairs = tuple((int(streams), int(drafts)) for streams, drafts in (pair.split(":") for pair in text.split(",")))
    except ValueError:
        raise ValueError("it must be auto, or STREAMS:DRAFTS with commas between, as 8:5,64:2") from None
    if any(later <= earlier for (earlier, _), (later, _) in zip(((0, 0), *pairs), pairs, strict=False)):
        raise ValueError("its numbers of streams must rise from 1 on")
    if any(drafts < 0 for _, drafts in pairs):
        raise ValueError("its numbers of drafts must be 0 or above")
    return pairs


def automatic_schedule(draft_tokens: int, slots: int) -> Schedule:
    """Halves the drafts, down to one, as often as it takes to verify no more than `_MOST_VERIFIED` tokens a step."""
    pairs: list[tuple[int, int]] = []
    drafts = draft_tokens
    while True:
        streams = slots if drafts == 1 else min(_MOST_VERIFIED // (drafts + 1), slots)
        if streams:
            pairs.append((streams, drafts))
        if streams == slots:
            return tuple(pairs)
        drafts = (drafts + 1) // 2


def as_ranges(schedule: Schedule) -> list[list[int]]:
    """The form of vLLM's `num_speculative_tokens_per_batch_size`: first and last batch size, and drafts."""
    firsts = [1, *(streams + 1 for streams, _ in schedule)]
    return [[first, streams, drafts] for first, (streams, drafts) in zip(firsts, schedule, strict=False)]
