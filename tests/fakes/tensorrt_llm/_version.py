"""Which TensorRT-LLM this stands in for: the last one with both backends, or a newer one with PyTorch's alone."""

import os

OLDEST, NEWEST = "1.2.1", "1.4.0rc1"
VERSION = os.environ.get("FAKE_TRTLLM_VERSION", OLDEST)
IS_NEWEST = VERSION == NEWEST
