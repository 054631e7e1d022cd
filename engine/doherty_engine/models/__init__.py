"""What engines share that take Hugging Face checkpoints to GPUs: weights, draft heads, cards, and folders of builds."""

from doherty_engine._errors import first_line
from doherty_engine.models._cache import BuildCache, BuildKey, default_cache
from doherty_engine.models._gpu import Gpu, visible_gpus
from doherty_engine.models._head import DFLASH, EAGLE3, Head, context_of, read_head
from doherty_engine.models._quality import TEXT, Quality, compare
from doherty_engine.models._shape import GIB, ModelShape, as_gib
from doherty_engine.models._stretch import fetch_whole, stretch
from doherty_engine.models._weights import check_digests, check_weights, fetch_weights, weights_identity

__all__ = [
    "DFLASH",
    "EAGLE3",
    "GIB",
    "TEXT",
    "BuildCache",
    "BuildKey",
    "Gpu",
    "Head",
    "ModelShape",
    "Quality",
    "as_gib",
    "check_digests",
    "check_weights",
    "compare",
    "context_of",
    "default_cache",
    "fetch_weights",
    "fetch_whole",
    "first_line",
    "read_head",
    "stretch",
    "visible_gpus",
    "weights_identity",
]
