"""The version that this fake replaces: the last one with both backends, or a newer one with only PyTorch's."""

import os

OLDEST, NEWEST = "1.2.1", "1.4.0rc1"
VERSION = os.environ.get("FAKE_TRTLLM_VERSION", OLDEST)
IS_NEWEST = VERSION == NEWEST
