"""What the rest of the engine sees of a model's files: Checkpoint, and how to open one.

Importing this module does not import torch; only `Checkpoint.load` and `upload` do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from octavo.base.errors import ModelFileError
from octavo.config.facts import CheckpointFacts
from octavo.config.model import ModelConfig
from octavo.tokens.source import TokenizerSource
from octavo.weights.config_json import context_length, override, text_config
from octavo.weights.dummy_checkpoint import DummyCheckpoint
from octavo.weights.gguf.part_names import model_names
from octavo.weights.gguf_checkpoint import GGUFCheckpoint
from octavo.weights.pickled import refuse_pickle
from octavo.weights.pooling_files import can_write, is_pooled, pooling_of
from octavo.weights.recurrent import recurrent_facts
from octavo.weights.safetensors_checkpoint import SafetensorsCheckpoint, has_safetensors
from octavo.weights.shapes import check_shapes
from octavo.weights.text_part import TextPart, text_only

if TYPE_CHECKING:
    import torch

    from octavo.ops.stored import StoredMatrix
    from octavo.weights.transfer import OnProgress

LOAD_FORMATS = ("auto", "safetensors", "gguf", "dummy")


class Checkpoint(Protocol):
    """A model's config and weights under Hugging Face names, wherever they come from. Checked when opened."""

    name: str
    """Short name to serve under."""
    path: Path
    format: str
    """'safetensors', 'gguf' or 'dummy'."""
    config: dict[str, Any]
    """Shaped like config.json; either spelling of transformers 4 and 5."""
    generation_config: dict[str, Any]
    """Shaped like generation_config.json; {} where there is none."""
    stored_dtype: str
    """Main type of the weights: 'float32', 'bfloat16', 'float16' or a GGUF type such as 'Q4_1'."""

    def tensor_names(self) -> list[str]: ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape. Raises ModelFileError for a name that is not there."""

    def load(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """A CPU tensor in `dtype` (None: as stored; float32 where stored in blocks).

        Where nothing has to change it is a view of the mapped file that must not be written to, and takes
        no memory of its own. May be called from several threads.
        """

    def stored_kind(self, name: str) -> str:
        """How the tensor is packed in the file: GGUF's name of the type, F32 where it is plain numbers."""

    def stored_matrix(self, name: str, *, is_turned: bool = False) -> StoredMatrix | None:
        """The bytes of a matrix as the file packs them; None: only `load` gives its numbers.

        Of several matrices [X, R, I] all rows, one matrix below the other; is_turned: of [X, I, R].
        """

    def upload(
        self, targets: Sequence[tuple[str, torch.Tensor]], on_progress: OnProgress | None = None
    ) -> None:
        """Write each named tensor into its target, in the target's type: the way to any device but the CPU.

        All targets have their tensor's shape and lie on one device. What the caller enqueues there next sees
        them complete.
        """

    def tokenizer_source(self) -> TokenizerSource: ...

    def close(self) -> None:
        """Let go of the files; nothing may be loaded after. Tensors already loaded stay valid."""


def open_checkpoint(
    path: Path, load_format: str = "auto", overrides: Mapping[str, Any] | None = None
) -> Checkpoint:
    """Open a model folder or a .gguf file and check all of it but the weights' values.

    overrides: entries to put over those of its config. Raises ModelFileError that names the file, key or
    tensor at fault.
    """
    if load_format not in LOAD_FORMATS:
        raise ModelFileError(f"There is no load format {load_format!r}; there are {', '.join(LOAD_FORMATS)}.")
    try:
        checkpoint = _open(path, load_format)
    except OSError as error:
        raise ModelFileError(f"Cannot read {path.name!r}: {error.strerror}.") from error
    if overrides:
        checkpoint.config = override(checkpoint.config, overrides)
        check_shapes(checkpoint.config, checkpoint.tensor_names(), checkpoint.shape)
    return checkpoint


def _open(path: Path, load_format: str) -> Checkpoint:
    if not path.is_dir():
        refuse_pickle(path)
        if load_format == "safetensors" or path.suffix == ".safetensors":
            raise ModelFileError(
                f"{path.name!r} is one file; give the folder that holds it and its config.json."
            )
        return DummyCheckpoint(path) if load_format == "dummy" else GGUFCheckpoint(path)
    if load_format == "gguf" or (load_format == "auto" and not has_safetensors(path)):
        only = _only_gguf(path, must_exist=load_format == "gguf")
        if only is not None:
            return GGUFCheckpoint(only)
    if load_format == "dummy":
        return DummyCheckpoint(path)
    whole = SafetensorsCheckpoint(path)
    of_text = text_only(whole.config)
    return whole if of_text is None else TextPart(whole, of_text)


def _only_gguf(folder: Path, *, must_exist: bool) -> Path | None:
    """The folder's GGUF file, or the first part of it, if it has just one."""
    found = model_names(entry.name for entry in folder.iterdir())
    if len(found) > 1:
        names = ", ".join(found[:5])
        raise ModelFileError(
            f"The folder {folder.name!r} has {len(found)} GGUF files ({names}); give one of them."
        )
    if not found and must_exist:
        raise ModelFileError(f"The folder {folder.name!r} has no .gguf file.")
    return folder / found[0] if found else None


def checkpoint_facts(checkpoint: Checkpoint, model: ModelConfig) -> CheckpointFacts:
    """What resolving the engine's options needs to know."""
    config, text = checkpoint.config, text_config(checkpoint.config)
    classes = config.get("architectures")
    first = classes[0] if isinstance(classes, list) and classes else None
    architecture = first or text.get("model_type")
    vocab_size = text.get("vocab_size")
    if not isinstance(architecture, str):
        raise ModelFileError("The model's config names no architecture (architectures, model_type).")
    if vocab_size is None:
        raise ModelFileError("The model's config has no vocab_size.")
    return CheckpointFacts(
        name=checkpoint.name,
        architecture=architecture,
        model_max_len=context_length(config),
        vocab_size=vocab_size,
        stored_dtype=checkpoint.stored_dtype,
        state_bytes=recurrent_facts(config).state_bytes,
        pooling=pooling_of(checkpoint, model) if is_pooled(checkpoint, model) else None,
        can_write=can_write(checkpoint),
    )
