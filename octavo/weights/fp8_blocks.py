"""FP8 in blocks in safetensors, as DeepSeek V3, R1, Kimi K2 and Qwen 3 have their matrices.

`NAME.weight` [R, I] holds eight bits a number (E4M3: a sign, four of exponent, three of fraction, no
infinity), `NAME.weight_scale_inv` the factor of each block of rows and columns (weight_block_size in
quantization_config: 128 by 128). What the checkpoint shows is their product, under the weight's name.

R rows, I inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from octavo.base.errors import ModelFileError
from octavo.base.integers import ceil_div
from octavo.weights.safetensors import SafetensorsFile, StoredTensor

if TYPE_CHECKING:
    import torch

    from octavo.ops.stored import StoredMatrix
    from octavo.weights.transfer import Piece

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SCALES = "_scale_inv"
FP8 = "float8_e4m3fn"
SCALE_TYPES = ("float32", "bfloat16", "float16")
ROWS_AT_ONCE = 1024


def _levels() -> Floats:
    """The number that each byte stands for."""
    byte = np.arange(128)
    exponent, fraction = byte >> 3, byte & 7
    numbers = np.where(
        exponent == 0, np.ldexp(fraction / 8.0, -6), np.ldexp(1.0 + fraction / 8.0, exponent - 7)
    )
    numbers[127] = np.nan
    return np.concatenate((numbers, -numbers)).astype(np.float32)


_LEVELS = _levels()


def dequantize(stored_RI: Bytes, scales: Floats, first_row: int, block: tuple[int, int], out: Floats) -> None:
    """Rows from `first_row` on of a matrix with these scales; `out` [R, I] is contiguous."""
    np.take(_LEVELS, stored_RI, out=out, mode="clip")
    scales_of_rows = scales[(first_row + np.arange(len(out))) // block[0]]
    for column in range(scales.shape[1]):
        out[:, column * block[1] : (column + 1) * block[1]] *= scales_of_rows[:, column, None]


@dataclass(frozen=True, kw_only=True)
class ScaledTensor:
    """One matrix in two tensors."""

    kind: ClassVar[str] = "F32"
    name: str
    file: SafetensorsFile
    scales_file: SafetensorsFile
    block: tuple[int, int]
    """Rows and columns that share a scale."""

    @property
    def stored_names(self) -> tuple[str, ...]:
        return self.name, self.name + SCALES

    @property
    def files(self) -> tuple[SafetensorsFile, ...]:
        return self.file, self.scales_file

    @property
    def stored(self) -> StoredTensor:
        return self.file.tensors[self.name]

    @property
    def scales(self) -> StoredTensor:
        return self.scales_file.tensors[self.name + SCALES]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    def _scales(self) -> Floats:
        loaded: Floats = self.scales_file.load(self.name + SCALES).float().numpy()
        return loaded

    def load(self, dtype: torch.dtype | None) -> torch.Tensor:
        """float32 where no type is given."""
        import torch

        stored_RI = self.file.load(self.name).view(torch.uint8).numpy()
        scales = self._scales()
        made_RI = torch.empty(self.shape, dtype=dtype or torch.float32)
        for start in range(0, len(stored_RI), ROWS_AT_ONCE):
            rows = stored_RI[start : start + ROWS_AT_ONCE]
            room = np.empty(rows.shape, dtype=np.float32)
            dequantize(rows, scales, start, self.block, room)
            made_RI[start : start + len(rows)].copy_(torch.from_numpy(room))
        return made_RI

    def matrix(self, *, is_turned: bool) -> StoredMatrix | None:  # noqa: ARG002
        return None

    def pieces(self, target: torch.Tensor, descriptors: Mapping[SafetensorsFile, int]) -> Iterator[Piece]:
        """As SafetensorsFile.pieces. Each reads its rows and makes numbers of them."""
        import torch

        from octavo.weights.transfer import Piece, cut

        inputs = self.shape[1]
        scales = self._scales()
        for part, first in cut(target, torch.float32.itemsize):
            assert part.ndim == 2, "no row is longer than a buffer"
            fill = partial(self._fill, descriptors, scales, first // inputs, len(part))
            yield Piece(target=part, dtype=torch.float32, fill=fill)

    def _fill(
        self,
        descriptors: Mapping[SafetensorsFile, int],
        scales: Floats,
        first_row: int,
        num_rows: int,
        room: Bytes,
    ) -> None:
        inputs = self.shape[1]
        stored_RI = np.empty((num_rows, inputs), dtype=np.uint8)
        start = self.stored.start + first_row * inputs
        self.file.read(descriptors[self.file], start, stored_RI.reshape(-1))
        out_RI = room.view(np.float32).reshape(num_rows, inputs)
        dequantize(stored_RI, scales, first_row, self.block, out_RI)


def find_scaled(
    files: Mapping[str, SafetensorsFile], quantization: Mapping[str, Any]
) -> dict[str, ScaledTensor]:
    """By the name that it shows. Raises ModelFileError for weights and scales that do not go together."""
    block = quantization.get("weight_block_size")
    is_pair = isinstance(block, list) and len(block) == 2
    if not is_pair or not all(type(size) is int and size > 0 for size in block or ()):
        raise ModelFileError(
            f"The checkpoint is in FP8 with weight_block_size {str(block)[:40]}; of FP8 only blocks of rows "
            "and columns, such as [128, 128], are read. Use the unquantised model or its GGUF."
        )
    assert block is not None, "it is a pair"
    scaled: dict[str, ScaledTensor] = {}
    for name, file in files.items():
        if file.tensors[name].dtype != FP8:
            continue
        scales_file = files.get(name + SCALES)
        if scales_file is None:
            raise ModelFileError(f"The checkpoint has {name!r} in FP8, but no {name + SCALES!r}.")
        scaled[name] = ScaledTensor(name=name, file=file, scales_file=scales_file, block=(block[0], block[1]))
        _check(scaled[name])
    return scaled


def _check(tensor: ScaledTensor) -> None:
    shape, scales = tensor.shape, tensor.scales
    wanted = tuple(ceil_div(size, block) for size, block in zip(shape, tensor.block, strict=False))
    if len(shape) != 2 or scales.shape != wanted or scales.dtype not in SCALE_TYPES:
        raise ModelFileError(
            f"{tensor.name!r} has the shape {list(shape)} and its scales {list(scales.shape)} in "
            f"{scales.dtype}; {list(wanted)} in {', '.join(SCALE_TYPES)} are expected."
        )
