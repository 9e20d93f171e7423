"""GGUFCheckpoint: a .gguf file behind Hugging Face names, dequantised at load."""

from __future__ import annotations

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
        self._gguf_names = _translate_names(file, arch_name, self._architecture)
        check_shapes(self.config, self._gguf_names, self.shape)
        self._check_biases()
        self.generation_config: dict[str, Any] = build_generation_config(
            file.metadata, self.config["vocab_size"]
        )
        main = stored_type(file)
        self.stored_dtype = TORCH_NAMES.get(main, main)

    def tensor_names(self) -> list[str]:
        return list(self._gguf_names)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._stored(name).shape

    def load(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return a CPU tensor in `dtype` (None: as stored, float32 for quantised tensors).

        A read-only view of the file where nothing has to change, else a new tensor; large tensors are
        worked on in chunks, so that only the result takes memory.
        """
        import torch

        file, tensor = self._opened(), self._stored(name)
        plain = TORCH_NAMES.get(tensor.kind.name)
        wanted = dtype or getattr(torch, plain or "float32")
        heads, offset = self._heads_to_unpermute(tensor), self._norm_offset(tensor)
        if plain is not None and wanted is getattr(torch, plain) and not heads and not offset:
            return mapped_tensor(file.data, tensor.start, tensor.shape, plain)
        return _dequantized(self._packed(tensor), tensor, wanted, offset)

    def stored_kind(self, name: str) -> str:
        return self._stored(name).kind.name

    def stored_matrix(self, name: str) -> StoredMatrix | None:
        tensor, file = self._stored(name), self._opened()
        packed = self._packed(tensor).reshape(tensor.shape[0], -1)
        return StoredMatrix(
            kind=tensor.kind.name,
            columns=tensor.shape[-1],
            data=packed,
            release=partial(file.forget, tensor.name),
        )

    def upload(
        self, targets: Sequence[tuple[str, torch.Tensor]], on_progress: OnProgress | None = None
    ) -> None:
        """Dequantise to float32 in threads, straight into staging buffers; the device converts further."""
        from octavo.weights.transfer import transfer

        pieces = [piece for name, target in targets for piece in self._pieces(name, target)]
        transfer(pieces, on_progress)

    def _pieces(self, name: str, target: torch.Tensor) -> Iterator[Piece]:
        import torch

        from octavo.weights.transfer import Piece, cut

        tensor = self._stored(name)
        packed, offset = self._packed(tensor), self._norm_offset(tensor)
        flat = packed.reshape(-1, tensor.kind.block_bytes)
        for part, first in cut(target, torch.float32.itemsize):
            # Parts are whole rows, and rows are whole blocks.
            start, stop = first // tensor.kind.block_size, (first + part.numel()) // tensor.kind.block_size
            fill = partial(_dequantize_into, flat[start:stop], tensor.kind, offset)
            yield Piece(target=part, dtype=torch.float32, fill=fill)

    def _packed(self, tensor: GGUFTensor) -> Bytes:
        """The bytes of a tensor, its rows in Hugging Face's order."""
        packed, heads = self._opened().packed(tensor.name), self._heads_to_unpermute(tensor)
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

    def _stored(self, name: str) -> GGUFTensor:
        if name not in self._gguf_names:
            raise ModelFileError(f"The checkpoint has no tensor {name!r}.")
        return self._opened().tensors[self._gguf_names[name]]

    def _opened(self) -> GGUFFile:
        if self._file is None:
            raise ModelFileError(f"The checkpoint {self.name!r} is closed.")
        return self._file

    def _check_biases(self) -> None:
        """Biases are optional in a file; those that exist are as long as their weight has rows."""
        for name in self._gguf_names:
            weight = name.removesuffix(".bias") + ".weight"
            if (
                name.endswith(".bias")
                and weight in self._gguf_names
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


def _translate_names(file: GGUFFile, arch_name: str, architecture: Architecture) -> dict[str, str]:
    """Hugging Face name -> GGUF name of every weight."""
    names: dict[str, str] = {}
    for gguf_name in file.tensors:
        if gguf_name == ROPE_FACTORS:
            continue
        name = to_hugging_face(gguf_name, architecture.layer_names)
        if name is None:
            raise ModelFileError(
                f"The GGUF file has a tensor {gguf_name!r}, which {arch_name!r} models do not have. "
                "It is a variant that is not supported."
            )
        names[name] = gguf_name
    return names


def _unpermute(rows: Bytes, heads: int) -> Bytes:
    """Bring the rows of each head from neighbouring pairs (0, 1, 2, 3) to halves (0, 2, 1, 3)."""
    pairs = rows.shape[0] // heads // 2
    return rows.reshape(heads, pairs, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def _dequantize_into(packed: Bytes, kind: BlockType, offset: float, room: Bytes) -> None:
    weights = room.view(np.float32)
    dequantize(packed, kind, weights)
    if offset:
        weights -= np.float32(offset)


def _dequantized(packed: Bytes, tensor: GGUFTensor, dtype: torch.dtype, offset: float) -> torch.Tensor:
    import torch

    result = torch.empty(tensor.shape, dtype=dtype)
    flat = result.view(-1)
    if dtype is torch.float32:
        dequantize(packed, tensor.kind, flat.numpy())
        return result.sub_(offset) if offset else result
    for start, weights in iter_dequantized(packed, tensor.kind):
        chunk = torch.from_numpy(weights)
        flat[start : start + len(weights)].copy_(chunk - offset if offset else chunk)
    return result
