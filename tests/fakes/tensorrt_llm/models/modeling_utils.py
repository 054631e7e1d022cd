"""The part of `models/modeling_utils.py` that concerns the mode of speculation."""

from enum import IntFlag, auto


class SpeculativeDecodingMode(IntFlag):
    """The mode for which an engine is built."""

    NONE = auto()
    DRAFT_TOKENS_EXTERNAL = auto()
    MEDUSA = auto()
    LOOKAHEAD_DECODING = auto()
    EXPLICIT_DRAFT_TOKENS = auto()
    EAGLE = auto()
    NGRAM = auto()
