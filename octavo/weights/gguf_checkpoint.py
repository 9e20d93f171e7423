"""GGUFCheckpoint: a .gguf file behind Hugging Face names, dequantised at load."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from octavo.base.errors import ModelFileError
from octavo.ops.stored import StoredMatrix
from octavo.tokens.source import TokenizerSource
from octavo.weights.gguf.architectures import Architecture, find_architecture
from octavo.weights.gguf.bits import Bytes
from octavo.weights.gguf.config import TORCH_NAMES, build_config, build_generation_config, stored_type
from octavo.weights.gguf.dequant import BlockType, dequantize, iter_dequantized
from octavo.weights.gguf.names import ROPE_FACTORS, to_hugging_face
from octavo.weights.gguf.reader import GGUFFile, GGUFTensor
from octavo.weights.gguf.views import Part, View, Views, add_expert_tensor
from octavo.weights.shapes import check_shapes
from octavo.weights.views import mapped_tensor

if TYPE_CHECKING:
    import torch

    from octavo.weights.transfer import OnProgress, Piece

_TYPE_SUFFIX = re.compile(r"[-._](?:i?q[0-9][a-z0-9_]*|bf16|fp?16|fp?32)$", re.IGNORECASE)
_QUERY_OR_KEY = re.compile(r"blk\.[0-9]+\.attn_([qk])\.(?:weight|bias)", re.ASCII)


class GGUFCheckpoint:
    """Weights of a GGUF file."""

    format = "gguf"

    def __init__(self, path: Path) -> None:
        """Check header, metadata and shapes. Raises ModelFileError."""
        self.path = path
        self.name = _TYPE_SUFFIX.sub("", path.name.removesuffix(".gguf")) or "model"
        file = GGUFFile(path)
        self._file: GGUFFile | None = file
        arch_name, self._architecture = find_architecture(file.metadata)
        self.config: dict[str, Any] = build_config(file)
        self._views = _make_views(file, arch_name, self._architecture, self.config)
        check_shapes(self.config, self._views, self.shape)
        self._check_biases()
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
        whole = torch.empty(view.shape, dtype=loaded[0].dtype)
        for part, tensor in zip(view.parts, loaded, strict=True):
            part.of(whole).copy_(tensor)
        return whole

    def _load_part(self, part: Part, dtype: torch.dtype | None) -> torch.Tensor:
        import torch

        file, tensor = self._opened(), part.tensor
        plain = TORCH_NAMES.get(tensor.kind.name)
        wanted = dtype or getattr(torch, plain or "float32")
        heads, offset = self._heads_to_unpermute(tensor), self._norm_offset(tensor)
        if plain is not None and wanted is getattr(torch, plain) and not heads and not offset:
            return mapped_tensor(file.data, part.start, part.shape, plain)
        return _dequantized(self._packed(part), part, wanted, offset)

    def stored_kind(self, name: str) -> str:
        return self._view(name).parts[0].tensor.kind.name

    def stored_matrix(self, name: str) -> StoredMatrix | None:
        view, file = self._view(name), self._opened()
        part = view.parts[0]
        if len(view.parts) > 1 or part.take is not None:
            return None
        return StoredMatrix(
            kind=part.tensor.kind.name,
            columns=view.shape[-1],
            data=self._packed(part).reshape(math.prod(view.shape[:-1]), -1),
            release=partial(file.forget, part.tensor.name),
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

        kind, offset = part.tensor.kind, self._norm_offset(part.tensor)
        flat = self._packed(part).reshape(-1, kind.block_bytes)
        for room, first in cut(target, torch.float32.itemsize):
            # What is cut are whole rows, and rows are whole blocks.
            start, stop = first // kind.block_size, (first + room.numel()) // kind.block_size
            fill = partial(_dequantize_into, flat[start:stop], kind, offset)
            yield Piece(target=room, dtype=torch.float32, fill=fill)

    def _packed(self, part: Part) -> Bytes:
        """The bytes of a part, its rows in Hugging Face's order."""
        tensor = part.tensor
        packed, heads = self._opened().packed(tensor.name), self._heads_to_unpermute(tensor)
        if part.expert is not None:
            of_expert: Bytes = packed.reshape(tensor.shape[0], -1)[part.expert]
            return of_expert
        # Whole rows move, so the packed rows can: they are a fraction of the size.
        return _unpermute(packed.reshape(tensor.shape[0], -1), heads) if heads else packed

    def _norm_offset(self, tensor: GGUFTensor) -> float:
        """What the file has added to the weights of norms."""
        return self._architecture.norm_offset if tensor.name.endswith("norm.weight") else 0.0

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

    def _check_biases(self) -> None:
        """Biases are optional in a file; those that exist are as long as their weight has rows."""
        for name in self._views:
            weight = name.removesuffix(".bias") + ".weight"
            if (
                name.endswith(".bias")
                and weight in self._views
                and self.shape(name) != self.shape(weight)[:1]
            ):
                raise ModelFileError(
                    f"The tensor {name!r} has the shape {list(self.shape(name))}, its weight "
                    f"{list(self.shape(weight))}."
                )

    def _heads_to_unpermute(self, tensor: GGUFTensor) -> int:
        """The number of heads whose rows are stored in rotation order; 0 where rows are in order."""
        match = _QUERY_OR_KEY.fullmatch(tensor.name) if self._architecture.has_interleaved_rope else None
        if match is None:
            return 0
        heads: int = self.config["num_attention_heads" if match[1] == "q" else "num_key_value_heads"]
        return heads


def _make_views(file: GGUFFile, arch_name: str, architecture: Architecture, config: dict[str, Any]) -> Views:
    """What every weight shows, by Hugging Face name."""
    views: Views = {}
    experts, num_experts = architecture.experts, config.get("num_experts")
    for gguf_name, tensor in file.tensors.items():
        if gguf_name == ROPE_FACTORS:
            continue
        if experts is not None and num_experts and add_expert_tensor(views, tensor, experts, num_experts):
            continue
        if architecture.add_own_tensor is not None and architecture.add_own_tensor(views, tensor, config):
            continue
        name = to_hugging_face(gguf_name, architecture.layer_names)
        if name is None:
            raise ModelFileError(
                f"The GGUF file has a tensor {gguf_name!r}, which {arch_name!r} models do not have. "
                "It is a variant that is not supported."
            )
        views[name] = View(tensor.shape, [Part(tensor)])
    return views


def _unpermute(rows: Bytes, heads: int) -> Bytes:
    """Bring the rows of each head from neighbouring pairs (0, 1, 2, 3) to halves (0, 2, 1, 3)."""
    pairs = rows.shape[0] // heads // 2
    return rows.reshape(heads, pairs, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def _dequantize_into(packed: Bytes, kind: BlockType, offset: float, room: Bytes) -> None:
    weights = room.view(np.float32)
    dequantize(packed, kind, weights)
    if offset:
        weights -= np.float32(offset)


def _dequantized(packed: Bytes, part: Part, dtype: torch.dtype, offset: float) -> torch.Tensor:
    import torch

    result = torch.empty(part.shape, dtype=dtype)
    flat = result.view(-1)
    if dtype is torch.float32:
        dequantize(packed, part.tensor.kind, flat.numpy())
        return result.sub_(offset) if offset else result
    for start, weights in iter_dequantized(packed, part.tensor.kind):
        chunk = torch.from_numpy(weights)
        flat[start : start + len(weights)].copy_(chunk - offset if offset else chunk)
    return result
