"""Shared by engines that run Hugging Face checkpoints on GPUs: weights, draft heads, GPUs, and caches of builds."""

from doherty_engine.models._cache import BuildCache, BuildKey, default_cache
from doherty_engine.models._gpu import Gpu, visible_gpus
from doherty_engine.models._head import DFLASH, EAGLE3, Head, context_length, read_head
from doherty_engine.models._positions import extend_positions, fetch_head
from doherty_engine.models._quality import TEXT, Quality, compare
from doherty_engine.models._shape import GIB, ModelShape, as_gib
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
    "context_length",
    "default_cache",
    "extend_positions",
    "fetch_head",
    "fetch_weights",
    "read_head",
    "visible_gpus",
    "weights_identity",
]
