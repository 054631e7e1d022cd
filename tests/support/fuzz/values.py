"""Values of every field type: valid, borderline and absurd ones."""

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

Values = st.SearchStrategy[object]

_INT32 = 2**31 - 1
_INT64 = 2**63 - 1
_UINT32 = 2**32 - 1
_UINT64 = 2**64 - 1

_SMALL = st.integers(0, 70)
_UNSIGNED = _SMALL | st.sampled_from([127, 128, 255, 256, 300, 511, 512, 4096, _INT32, _INT32 + 1, _UINT32])
_SIGNED = _SMALL | st.sampled_from([-1, -2, -_INT32 - 1, _INT32, 1000])
_UNSIGNED64 = _UNSIGNED | st.sampled_from([_INT64, _INT64 + 1, _UINT64])
_SIGNED64 = _SIGNED | st.sampled_from([-_INT64 - 1, _INT64, 10**9, 315_576_000_001])

PARTS = 'aé水🙂\0\n"\\{}[]()<>|/%\u202e\ufeff\u0301\U0010ffff '
"""Characters of one to four bytes, characters that have a meaning to parsers, and characters that confuse terminals."""

_KNOWN_TEXTS = ["", "a", "Name three colors.", " word", "<|im_end|>", "<|im_start|>system\n", "%s%n{0}", "../../etc"]
TEXTS = st.sampled_from(_KNOWN_TEXTS) | st.text(PARTS, max_size=12) | st.text(max_size=8)
HUGE_TEXTS = st.builds(
    lambda text, times: (text or "x") * times, st.text(PARTS, max_size=4), st.sampled_from([100, 3000, 60_000])
)

SCALARS: dict[int, Values] = {
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=20),
    FieldDescriptor.TYPE_DOUBLE: st.floats(0, 2) | st.floats(),
    FieldDescriptor.TYPE_ENUM: _SIGNED | st.integers(0, 5),
    FieldDescriptor.TYPE_FLOAT: st.floats(0, 2, width=32) | st.floats(width=32),
    FieldDescriptor.TYPE_INT32: _SIGNED,
    FieldDescriptor.TYPE_INT64: _SIGNED64,
    FieldDescriptor.TYPE_STRING: st.integers(0, 30).flatmap(lambda dice: TEXTS if dice else HUGE_TEXTS),
    FieldDescriptor.TYPE_UINT32: _UNSIGNED,
    FieldDescriptor.TYPE_UINT64: _UNSIGNED64,
}
"""The values by field type.

Types that our contract does not use are missing; a first field of such a type fails here.
"""
