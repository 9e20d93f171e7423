"""DummyCheckpoint: random weights for a real config, to measure speed or test without the weights."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.base.errors import ModelFileError
from octavo.tokens.source import TokenizerSource
from octavo.weights.config_json import read_config, read_generation_config, text_config
from octavo.weights.gguf_checkpoint import GGUFCheckpoint
from octavo.weights.module_folders import transformer_folder
from octavo.weights.safetensors_checkpoint import PLAIN_KINDS, folder_name
from octavo.weights.shapes import expected_shapes
from octavo.weights.skeleton import build_skeleton, has_skeleton, stored_tensors
from octavo.weights.text_part import text_only

if TYPE_CHECKING:
    import torch

    from octavo.ops.stored import StoredMatrix
    from octavo.weights.transfer import OnProgress

INITIAL_DEVIATION = 0.02


class DummyCheckpoint:
    """The config of a folder or GGUF file, with weights made on the fly; the same ones every time."""

    format = "dummy"

    def __init__(self, path: Path) -> None:
        """Read config and names only; a folder needs no weights. Raises ModelFileError."""
        self.path = path
        self.config: dict[str, Any]
        self.generation_config: dict[str, Any]
        self._known_shapes: dict[str, tuple[int, ...]] | None
        if path.is_dir():
            self.name = folder_name(path)
            folder = transformer_folder(path)
            config = read_config(folder)
            self.config = text_only(config) or config
            self.generation_config = read_generation_config(folder)
            self._tokenizer = TokenizerSource(folder=folder)
            self._known_shapes = None
        else:
            real = GGUFCheckpoint(path)
            self.name, self.config, self.generation_config = real.name, real.config, real.generation_config
            self._tokenizer = real.tokenizer_source()
            self._known_shapes = {name: real.shape(name) for name in real.tensor_names()}
        text = text_config(self.config)
        stated = str(text.get("dtype") or text.get("torch_dtype")).removeprefix("torch.")
        self.stored_dtype = stated if stated in PLAIN_KINDS else "float32"

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Not before somebody asks: it may take transformers to tell."""
        return _shapes(self.config) if self._known_shapes is None else self._known_shapes

    def tensor_names(self) -> list[str]:
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            raise ModelFileError(f"The model has no tensor {name!r}.")
        return self._shapes[name]

    def load(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Make the tensor: ones for norms, else small normal numbers from a seed of the name."""
        import torch

        made = torch.empty(self.shape(name))
        _make(name, made, torch.Generator())
        return made.to(dtype or torch.float32)

    def stored_kind(self, name: str) -> str:  # noqa: ARG002
        return "F32"

    def stored_matrix(self, name: str, *, is_turned: bool = False) -> StoredMatrix | None:  # noqa: ARG002
        return None

    def upload(
        self, targets: Sequence[tuple[str, torch.Tensor]], on_progress: OnProgress | None = None
    ) -> None:
        """Make the numbers where they belong: billions a second on a GPU, other ones than a CPU makes."""
        import torch

        total, done = sum(target.nbytes for _, target in targets), 0
        generator = torch.Generator(targets[0][1].device) if targets else torch.Generator()
        for name, target in targets:
            _make(name, target, generator)
            done += target.nbytes
            if on_progress is not None:
                on_progress(done, total)

    def tokenizer_source(self) -> TokenizerSource:
        return self._tokenizer

    def close(self) -> None:
        """Nothing is held open."""


def _make(name: str, target: torch.Tensor, generator: torch.Generator) -> None:
    if name.endswith("norm.weight"):
        target.fill_(1.0)
    else:
        generator.manual_seed(zlib.crc32(name.encode()))
        target.normal_(0.0, INITIAL_DEVIATION, generator=generator)


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    shapes = expected_shapes(config)
    if shapes is not None:
        return shapes
    if not has_skeleton(config):
        raise ModelFileError(
            f"No random weights can be made for the model type {str(config.get('model_type'))[:80]!r}: "
            "its tensors are known neither here nor to the installed transformers. Load the real weights."
        )
    skeleton = build_skeleton(config, dtype="float32")
    stored = stored_tensors(skeleton, skeleton.state_dict())
    return {name: tuple(tensor.shape) for name, tensor in stored.items()}
