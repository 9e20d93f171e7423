"""GGUFCheckpoint: a .gguf file, or the parts of one, behind Hugging Face names, dequantised at load."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from octavo.base.errors import ModelFileError
from octavo.ops.stored import StoredMatrix
from octavo.tokens.source import TokenizerSource
from octavo.weights.gguf.architecture import Architecture
from octavo.weights.gguf.architectures import find_architecture
from octavo.weights.gguf.bits import Bytes
from octavo.weights.gguf.config import TORCH_NAMES, build_config, build_generation_config, stored_type
from octavo.weights.gguf.dequant import BlockType, dequantize, iter_dequantized
from octavo.weights.gguf.joined import open_gguf
from octavo.weights.gguf.names import NO_WEIGHTS, layer_index
from octavo.weights.gguf.part_names import without_part
from octavo.weights.gguf.reader import GGUFFile, GGUFTensor
from octavo.weights.gguf.views import (
    Joint,
    Order,
    Part,
    Undo,
    View,
    Views,
    add_expert_tensor,
    out_of_pairs,
    take_off,
)
from octavo.weights.shapes import check_shapes
from octavo.weights.views import mapped_tensor

if TYPE_CHECKING:
    import torch

    from octavo.weights.transfer import OnProgress, Piece

_TYPE_SUFFIX = re.compile(r"[-._](?:[it]?q[0-9][a-z0-9_]*|bf16|fp?16|fp?32)$", re.IGNORECASE)
_QUERY_OR_KEY = re.compile(r"blk\.[0-9]+\.attn_([qk])\.(?:weight|bias)", re.ASCII)


class GGUFCheckpoint:
    """Weights of a GGUF file."""

    format = "gguf"

    def __init__(self, path: Path) -> None:
        """Check header, metadata and shapes. Raises ModelFileError."""
        self.path = path
        self.name = _TYPE_SUFFIX.sub("", without_part(path.name)) or "model"
        file = open_gguf(path)
        self._file: GGUFFile | None = file
        arch_name, self._architecture = find_architecture(file.metadata)
        self.config: dict[str, Any] = build_config(file)
        self._views = _make_views(file, arch_name, self._architecture, self.config)
        _check_parts(self._views)
        check_shapes(self.config, self._views, self.shape)
        _check_biases(file)
        self.generation_config: dict[str, Any] = build_generation_config(
            file.metadata, self.config["vocab_size"]
        )
        main = stored_type(file)
        self.stored_dtype = TORCH_NAMES.get(main, main)

    def tensor_names(self) -> list[str]:
        return list(self._views)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._view(name).shape

    def load(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return a CPU tensor in `dtype` (None: as stored, float32 for quantised tensors).

        A read-only view of the file where nothing has to change, else a new tensor; large tensors are
        worked on in chunks, so that only the result takes memory.
        """
        import torch

        view = self._view(name)
        loaded = [self._load_part(part, dtype) for part in view.parts]
        if len(loaded) == 1 and view.parts[0].take is None:
            return loaded[0]
        whole = torch.empty(view.shape, dtype=reduce(torch.promote_types, (each.dtype for each in loaded)))
        for part, tensor in zip(view.parts, loaded, strict=True):
            part.of(whole).copy_(tensor)
        return whole

    def _load_part(self, part: Part, dtype: torch.dtype | None) -> torch.Tensor:
        import torch

        file = self._opened()
        plain = TORCH_NAMES.get(part.tensor.kind.name)
        wanted = dtype or getattr(torch, plain or "float32")
        if plain is not None and wanted is getattr(torch, plain) and part.is_as_stored:
            return mapped_tensor(file.map_of(part.tensor.name), part.start, part.shape, plain)
        return _dequantized(self._packed(part), part, wanted)

    def stored_kind(self, name: str) -> str:
        return self._view(name).parts[0].tensor.kind.name

    def stored_matrix(self, name: str, *, is_turned: bool = False) -> StoredMatrix | None:
        view = self._view(name)
        part = view.parts[0]
        if view.joint is not None:
            return self._joined_matrix(view, view.joint) if view.joint.is_turned is is_turned else None
        if len(view.parts) > 1 or part.take is not None or part.undo is not None or is_turned:
            return None
        return self._stored_matrix(view, self._packed(part))

    def _joined_matrix(self, view: View, joint: Joint) -> StoredMatrix | None:
        """None where its parts are packed in different ways."""
        if len({part.tensor.kind.name for part in view.parts}) > 1:
            return None
        packed = [self._packed(part).reshape(*part.shape[:2], -1) for part in view.parts]
        return self._stored_matrix(view, packed[0] if len(packed) == 1 else joint.rows(packed))

    def _stored_matrix(self, view: View, packed: Bytes) -> StoredMatrix:
        file = self._opened()

        def release() -> None:
            for part in view.parts:
                file.forget(part.tensor.name)

        first = view.parts[0]
        columns = first.shape[-1]
        rows = math.prod(view.shape) // columns
        return StoredMatrix(
            kind=first.tensor.kind.name, columns=columns, data=packed.reshape(rows, -1), release=release
        )

    def upload(
        self, targets: Sequence[tuple[str, torch.Tensor]], on_progress: OnProgress | None = None
    ) -> None:
        """Dequantise to float32 in threads, straight into staging buffers; the device converts further."""
        from octavo.weights.transfer import transfer

        pieces = [
            piece
            for name, target in targets
            for part in self._view(name).parts
            for piece in self._pieces(part, part.of(target))
        ]
        transfer(pieces, on_progress)

    def _pieces(self, part: Part, target: torch.Tensor) -> Iterator[Piece]:
        import torch

        from octavo.weights.transfer import Piece, cut

        kind = part.tensor.kind
        flat = self._packed(part).reshape(-1, kind.block_bytes)
        for room, first in cut(target, torch.float32.itemsize):
            # What is cut are whole rows, and rows are whole blocks.
            start, stop = first // kind.block_size, (first + room.numel()) // kind.block_size
            fill = partial(_dequantize_into, flat[start:stop], kind, part.undo)
            yield Piece(target=room, dtype=torch.float32, fill=fill)

    def _packed(self, part: Part) -> Bytes:
        """The bytes of a part, its rows in Hugging Face's order."""
        return part.in_order(self._opened().packed(part.tensor.name))

    def tokenizer_source(self) -> TokenizerSource:
        metadata = self._opened().metadata
        return TokenizerSource(
            gguf_metadata={
                key: metadata[key] for key in metadata if key.startswith(("tokenizer.", "general."))
            }
        )

    def close(self) -> None:
        """Let go of the file. Tensors that were loaded stay valid."""
        self._file = None

    def _view(self, name: str) -> View:
        if name not in self._views:
            raise ModelFileError(f"The checkpoint has no tensor {name!r}.")
        self._opened()
        return self._views[name]

    def _opened(self) -> GGUFFile:
        if self._file is None:
            raise ModelFileError(f"The checkpoint {self.name!r} is closed.")
        return self._file


def _check_parts(views: Views) -> None:
    for name, view in views.items():
        if sum(math.prod(part.shape) for part in view.parts) != math.prod(view.shape):
            there = ", ".join(part.tensor.name for part in view.parts)
            raise ModelFileError(f"Of {name!r} the GGUF file has only {there}. Fetch the model again.")


def _check_biases(file: GGUFFile) -> None:
    """Biases are optional in a file; those that exist are as long as their weight has rows."""
    for name, bias in file.tensors.items():
        weight = file.tensors.get(name.removesuffix(".bias") + ".weight") if name.endswith(".bias") else None
        if weight is not None and len(bias.shape) == 1 and bias.shape != weight.shape[:1]:
            raise ModelFileError(
                f"The tensor {name!r} has the shape {list(bias.shape)}, its weight {list(weight.shape)}."
            )


def _make_views(file: GGUFFile, arch_name: str, architecture: Architecture, config: dict[str, Any]) -> Views:
    """What every weight shows, by Hugging Face name. Layers for drafting show nothing."""
    views: Views = {}
    experts, num_experts = architecture.experts, config.get("num_experts")
    for gguf_name, tensor in file.tensors.items():
        if gguf_name in NO_WEIGHTS or (layer_index(gguf_name) or 0) >= config["num_hidden_layers"]:
            continue
        if experts is not None and num_experts and add_expert_tensor(views, tensor, experts, num_experts):
            continue
        name = architecture.find_name(gguf_name)
        add_own = architecture.add_own_tensor
        if add_own is not None and add_own(views, tensor, name, config):
            continue
        if name is None:
            raise ModelFileError(
                f"The GGUF file has a tensor {gguf_name!r}, which {arch_name!r} models do not have. "
                "It is a variant that is not supported."
            )
        is_offset = architecture.norm_offset and gguf_name.endswith("norm.weight")
        views[name] = View.of(
            tensor,
            order=_rotation_order(tensor, config) if architecture.has_interleaved_rope else None,
            undo=take_off(architecture.norm_offset) if is_offset else None,
        )
    return views


def _rotation_order(tensor: GGUFTensor, config: dict[str, Any]) -> Order | None:
    """For queries and keys that are stored in the order of neighbouring pairs; None for other tensors."""
    match = _QUERY_OR_KEY.fullmatch(tensor.name)
    if match is None:
        return None
    heads: int = config["num_attention_heads" if match[1] == "q" else "num_key_value_heads"]
    if tensor.shape[0] % (2 * heads):
        raise ModelFileError(
            f"The GGUF tensor {tensor.name!r} has {tensor.shape[0]} rows, which are not {heads} heads of "
            "whole pairs."
        )
    return out_of_pairs(tensor.shape[0], heads)


def _dequantize_into(packed: Bytes, kind: BlockType, undo: Undo | None, room: Bytes) -> None:
    weights = room.view(np.float32)
    dequantize(packed, kind, weights)
    if undo is not None:
        undo(weights)


def _dequantized(packed: Bytes, part: Part, dtype: torch.dtype) -> torch.Tensor:
    import torch

    result = torch.empty(part.shape, dtype=dtype)
    flat = result.view(-1)
    if dtype is torch.float32:
        _dequantize_into(packed, part.tensor.kind, part.undo, flat.numpy().view(np.uint8))
        return result
    for start, weights in iter_dequantized(packed, part.tensor.kind):
        if part.undo is not None:
            part.undo(weights)
        flat[start : start + len(weights)].copy_(torch.from_numpy(weights))
    return result
