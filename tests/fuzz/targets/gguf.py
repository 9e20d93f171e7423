"""GGUF files as a start of the engine reads them: header, config, every tensor, tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

import torch

from octavo.base.errors import ConfigError, ModelFileError
from octavo.config.model import ModelConfig
from octavo.weights.checkpoint import checkpoint_facts, open_checkpoint
from octavo.weights.gguf.reader import GGUFFile
from tests.fuzz.gguf_files import FAMILIES, WORDS, packed_in, whole_model
from tests.fuzz.mutate import bytes_mutator
from tests.fuzz.target import Run, Target

MAX_WEIGHTS = 1 << 20


def opened(folder: Path) -> Run:
    torch.set_num_threads(1)
    path = folder / "model.gguf"

    def run(data: bytes) -> None:
        path.unlink(missing_ok=True)  # Maps of the one before may live on.
        path.write_bytes(data)
        try:
            GGUFFile(path)
            checkpoint = open_checkpoint(path)
            facts = checkpoint_facts(checkpoint, ModelConfig())
            assert facts.vocab_size > 0
            for name in checkpoint.tensor_names():
                shape = checkpoint.shape(name)
                if prod(shape) <= MAX_WEIGHTS:
                    assert tuple(checkpoint.load(name, torch.float32).shape) == shape
                checkpoint.stored_matrix(name)
        except (ModelFileError, ConfigError):
            return

    return run


def seeds() -> Iterator[bytes]:
    for family in FAMILIES:
        yield whole_model(family)
    yield from map(packed_in, (0, 2, 12, 39))


TARGET = Target(open=opened, seeds=seeds, mutate=bytes_mutator(WORDS, hot_bytes=3000), max_bytes=64 * 1024)
