"""How many tokens to draft per step: fewer when more requests run, because a step verifies the draft tokens of all."""

AUTO = "auto"
_MAX_VERIFIED = 256
"""An H100 computes about this many tokens per step in the time that it needs to read the weights of an 8B model. With
64 streams, throughput was 34 % higher with three draft tokens than with none (benchmarks/gpu/NOTES.md)."""

Schedule = tuple[tuple[int, int], ...]
"""Pairs: up to so many streams, so many draft tokens. The last pair also applies to more streams."""


def parse_schedule(text: str) -> Schedule | str:
    """Parses "auto", or STREAMS:DRAFTS separated by commas, such as "8:5,64:2"."""
    if text == AUTO:
        return AUTO
    try:
        pairs = tuple((int(streams), int(drafts)) for streams, drafts in (pair.split(":") for pair in text.split(",")))
    except ValueError:
        raise ValueError("it must be auto, or STREAMS:DRAFTS separated by commas, such as 8:5,64:2") from None
    if any(later <= earlier for (earlier, _), (later, _) in zip(((0, 0), *pairs), pairs, strict=False)):
        raise ValueError("its numbers of streams must be 1 or above, and increase")
    if any(drafts < 0 for _, drafts in pairs):
        raise ValueError("its numbers of draft tokens must be 0 or above")
    return pairs


def automatic_schedule(draft_tokens: int, slots: int) -> Schedule:
    """Returns the schedule of "auto": the more streams, the fewer draft tokens.

    The number of draft tokens is halved whenever a step would verify more than `_MAX_VERIFIED` tokens, down to one.
    """
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
    """Converts a schedule to vLLM's `num_speculative_tokens_per_batch_size`.

    Each item has the first batch size, the last batch size, and the number of draft tokens.
    """
    firsts = [1, *(streams + 1 for streams, _ in schedule)]
    return [[first, streams, drafts] for first, (streams, drafts) in zip(firsts, schedule, strict=False)]
