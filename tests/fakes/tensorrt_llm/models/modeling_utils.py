"""`models/modeling_utils.py`, as far as the mode of speculation goes."""

from enum import IntFlag, auto


class SpeculativeDecodingMode(IntFlag):
    """What an engine is built for."""

    NONE = auto()
    DRAFT_TOKENS_EXTERNAL = auto()
    MEDUSA = auto()
    LOOKAHEAD_DECODING = auto()
    EXPLICIT_DRAFT_TOKENS = auto()
    EAGLE = auto()
    NGRAM = auto()
