"""One server with the default model for all examples of the documentation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.server_process import ServerProcess, serving

MODEL = "smollm2-135m-instruct"


@pytest.fixture(scope="session")
def documented_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("documented")
    flags = ("--max-model-len", "4096", "--max-num-seqs", "16", "--num-blocks", "1024")
    options = ("--enable-prompt-embeds",)
    with serving(Path(MODEL), *flags, *options, log=folder / "log") as server:
        yield server


@pytest.fixture(scope="session")
def documented_embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """For the page about models that embed."""
    log = tmp_path_factory.mktemp("embedder") / "log"
    with serving(Path("all-minilm-l6-v2"), log=log) as server:
        yield server
