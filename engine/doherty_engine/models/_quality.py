"""Measures the loss of quality through FP8: compares perplexity and greedy choices with those of the original model."""

from collections.abc import Sequence
from dataclasses import dataclass

TEXT = """
Water is the reason why the weather of a coast is milder than that of the land behind it. A kilogram of water has to
take in about four times as much heat as a kilogram of sand before it is one degree warmer, and so the sea is slow
in summer and slow in winter. By day the land is heated first. The air above it rises, and cooler air from the sea
comes in below: that is the wind which sailors know in the afternoon. By night it is the other way round. Whoever
lives on an island therefore seldom sees frost, and seldom a heat that lasts. Further inland the same sun does more.
In the middle of a continent the difference between July and January can be sixty degrees, though both places lie
equally far from the equator. Mountains change the picture once more. Where a wind from the sea has to climb, it
cools, and what it carries falls as rain or snow on the side that it meets first; on the other side lies a dry
valley, in which people dig channels for what melts above them. It is a mistake to believe that deserts are made by
heat alone. Some of them are cold for half of the year, and some lie beside an ocean whose currents come from the
ice, so that fog is all that they get. What makes a desert is that more water could evaporate there than ever falls.
A forest, on the other hand, makes part of its own rain: its leaves give back to the air what its roots have found,
and a cloud that has formed over trees may travel a thousand kilometres before it breaks. When the trees are felled,
the rivers carry more for some years, and then less. None of this needs a computer to be understood, and yet it took
two centuries of patient measurement, by people who wrote down every morning what the thermometer showed, until
anybody could say how much of it would happen again next year.
"""


@dataclass(frozen=True, slots=True)
class Quality:
    """A comparison of a quantized model ("fast") with the original ("slow") on the same text."""

    tokens: int
    fast_perplexity: float
    slow_perplexity: float
    agreement: float
    """The share of positions at which the same token is the most probable one, from 0 to 1."""

    @property
    def loss(self) -> float:
        """The relative increase of perplexity; 0.01 means that the quantized model's is 1 % higher."""
        return self.fast_perplexity / self.slow_perplexity - 1


def compare(fast: tuple[float, Sequence[int]], slow: tuple[float, Sequence[int]]) -> Quality:
    """Compares two models on the same text; each is a perplexity and the most probable token at each position."""
    same = sum(ours == theirs for ours, theirs in zip(fast[1], slow[1], strict=True))
    return Quality(len(fast[1]), fast[0], slow[0], same / len(fast[1]))
