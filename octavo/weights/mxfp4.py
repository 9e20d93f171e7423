"""MXFP4 in safetensors, as GPT-OSS has its experts: four bits a number, a scale for each 32 of a row.

Source: OCP Microscaling Formats (MX) Specification 1.0. `NAME_blocks` [X, R, G, 16] holds two numbers a byte,
the lower bits first, `NAME_scales` [X, R, G] the exponent of each group, plus 127. What the checkpoint shows
is the tensor they were made from, `NAME` [X, I, R] with inputs first and I = 32 G. Every number of it is one
of bfloat16, exactly.

X experts, R rows, G groups, I inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from octavo.base.errors import ModelFileError
from octavo.weights.safetensors import SafetensorsFile, StoredTensor

if TYPE_CHECKING:
    import torch

    from octavo.ops.stored import StoredMatrix
    from octavo.weights.transfer import Piece

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

BLOCKS, SCALES = "_blocks", "_scales"
GROUP = 32
GROUP_BYTES = 16

_MAGNITUDES = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], dtype=np.float32)
_LEVELS = np.concatenate((_MAGNITUDES, -_MAGNITUDES))
_PAIRS_B2 = np.stack((np.tile(_LEVELS, 16), np.repeat(_LEVELS, 16)), axis=1)
"""The two numbers of every byte."""
_SCALES_B = np.append(np.ldexp(1.0, np.arange(255) - 127), np.nan).astype(np.float32)
"""The last one stands for no number."""


def dequantize(blocks: Bytes, scales: Bytes, out: Floats) -> None:
    """blocks of 16 bytes and as many scales -> 32 numbers each; `out` is contiguous and just large enough."""
    numbers = out.reshape(-1, GROUP)
    np.take(_PAIRS_B2, blocks.reshape(-1, GROUP_BYTES), axis=0, out=numbers.reshape(-1, GROUP_BYTES, 2))
    with np.errstate(invalid="ignore", over="ignore"):
        numbers *= _SCALES_B[scales.reshape(-1, 1)]


@dataclass(frozen=True, kw_only=True)
class PackedTensor:
    """One tensor in two."""

    kind: ClassVar[str] = "MXFP4"
    name: str
    blocks_file: SafetensorsFile
    scales_file: SafetensorsFile

    @property
    def stored_names(self) -> tuple[str, ...]:
        return self.name + BLOCKS, self.name + SCALES

    @property
    def files(self) -> tuple[SafetensorsFile, ...]:
        return self.blocks_file, self.scales_file

    @property
    def blocks(self) -> StoredTensor:
        return self.blocks_file.tensors[self.name + BLOCKS]

    @property
    def scales(self) -> StoredTensor:
        return self.scales_file.tensors[self.name + SCALES]

    @property
    def shape(self) -> tuple[int, ...]:
        """[X, I, R]"""
        experts, rows, groups = self.scales.shape
        return experts, groups * GROUP, rows

    def load(self, dtype: torch.dtype | None) -> torch.Tensor:
        """[X, I, R], one expert after the other; bfloat16 where no type is given."""
        import torch

        experts, inputs, rows = self.shape
        blocks = self.blocks_file.load(self.name + BLOCKS).numpy()
        scales = self.scales_file.load(self.name + SCALES).numpy()
        made = torch.empty(experts, rows, inputs, dtype=dtype or torch.bfloat16)
        room = np.empty((rows, inputs), dtype=np.float32)
        for expert in range(experts):
            dequantize(blocks[expert], scales[expert], room)
            made[expert].copy_(torch.from_numpy(room))
        return made.transpose(1, 2)

    def matrix(self, *, is_turned: bool) -> StoredMatrix | None:
        """All rows, one expert's below the other's, packed as in GGUF files.

        There comes the scale of 32 numbers, then bytes of which number i holds numbers i and 16 + i.
        """
        from octavo.ops.stored import StoredMatrix

        if not is_turned:
            return None
        experts, inputs, rows = self.shape
        blocks = self.blocks_file.load(self.name + BLOCKS).numpy()
        scales = self.scales_file.load(self.name + SCALES).numpy()
        packed = np.empty((experts, rows, inputs // GROUP, 1 + GROUP_BYTES), dtype=np.uint8)
        packed[..., 0] = scales
        for expert in range(experts):
            pairs = np.stack((blocks[expert] & 15, blocks[expert] >> 4), axis=-1)
            numbers = pairs.reshape(rows, -1, 2, GROUP // 2)
            packed[expert, :, :, 1:] = numbers[:, :, 0] | numbers[:, :, 1] << 4
        return StoredMatrix(
            kind=self.kind, columns=inputs, data=packed.reshape(experts * rows, -1), release=self._forget
        )

    def _forget(self) -> None:
        self.blocks_file.forget(self.name + BLOCKS)
        self.scales_file.forget(self.name + SCALES)

    def pieces(self, target: torch.Tensor, descriptors: Mapping[SafetensorsFile, int]) -> Iterator[Piece]:
        """As SafetensorsFile.pieces. Each reads its blocks and scales and makes numbers of them."""
        import torch

        from octavo.weights.transfer import Piece, cut

        for part, first in cut(target.transpose(1, 2), torch.float32.itemsize):
            fill = partial(self._fill, descriptors, first // GROUP, part.numel() // GROUP)
            yield Piece(target=part, dtype=torch.float32, fill=fill)

    def _fill(
        self, descriptors: Mapping[SafetensorsFile, int], first_group: int, num_groups: int, room: Bytes
    ) -> None:
        blocks = np.empty(num_groups * GROUP_BYTES, dtype=np.uint8)
        scales = np.empty(num_groups, dtype=np.uint8)
        self.blocks_file.read(
            descriptors[self.blocks_file], self.blocks.start + first_group * GROUP_BYTES, blocks
        )
        self.scales_file.read(descriptors[self.scales_file], self.scales.start + first_group, scales)
        dequantize(blocks, scales, room.view(np.float32))


def find_packed(files: Mapping[str, SafetensorsFile]) -> dict[str, PackedTensor]:
    """By the name that it shows. Raises ModelFileError for halves that do not go together."""
    packed: dict[str, PackedTensor] = {}
    for full_name, blocks_file in files.items():
        if not full_name.endswith(BLOCKS):
            continue
        name = full_name.removesuffix(BLOCKS)
        scales_file = files.get(name + SCALES)
        if scales_file is None:
            raise ModelFileError(f"The checkpoint has {full_name!r}, but no {name + SCALES!r}.")
        found = PackedTensor(name=name, blocks_file=blocks_file, scales_file=scales_file)
        _check(found)
        packed[name] = found
    return packed


def _check(tensor: PackedTensor) -> None:
    blocks, scales = tensor.blocks, tensor.scales
    if {blocks.dtype, scales.dtype} != {"uint8"}:
        raise ModelFileError(
            f"{tensor.name!r} is MXFP4 in {blocks.dtype} and {scales.dtype}; both parts must be uint8."
        )
    if len(scales.shape) != 3 or not prod(scales.shape) or blocks.shape != (*scales.shape, GROUP_BYTES):
        raise ModelFileError(
            f"{tensor.name + BLOCKS!r} has the shape {list(blocks.shape)} and its scales "
            f"{list(scales.shape)}; [X, R, G, {GROUP_BYTES}] and [X, R, G] are expected."
        )
