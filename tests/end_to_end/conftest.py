"""A tiny Llama on disk for tests that need a whole engine with a real worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import save_model


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("tiny-llama") / "tiny-llama")
