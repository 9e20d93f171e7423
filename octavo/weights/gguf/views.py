"""How tensors of a GGUF file show themselves under Hugging Face names: as they are, in slices, or joined.

GGUF keeps the experts of a layer stacked, gate, up and down apart. Hugging Face has a tensor for each expert,
or stacks them in an order of its own. A `View` is one such tensor: which stored tensors fill which part.

X experts, F inner width, E width.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from octavo.base.errors import ModelFileError
from octavo.weights.gguf.bits import Bytes, Floats
from octavo.weights.gguf.reader import GGUFTensor
from octavo.weights.views import Shape

if TYPE_CHECKING:
    import torch

Order = npt.NDArray[np.int64]
Take = Callable[["torch.Tensor"], "torch.Tensor"]
"""From a whole tensor of Hugging Face to the part that a stored one fills, in that one's shape."""
Undo = Callable[[Floats], None]
"""Makes of stored numbers the checkpoint's own, where they lie."""


@dataclass(frozen=True, kw_only=True)
class Part:
    tensor: GGUFTensor
    rows: range | None = None
    """Only these of it, along its first dimension, which is then left out if `shape` does not say more."""
    shape: Shape
    """Of what is taken of it."""
    take: Take | None = None
    """None: all of the view."""
    order: Order | None = None
    """The checkpoint's row i is the stored row order[i]. Only of whole tensors."""
    undo: Undo | None = None

    @property
    def start(self) -> int:
        """Byte in the file."""
        first = 0 if self.rows is None else self.rows.start
        return self.tensor.start + first * (self.tensor.num_bytes // self.tensor.shape[0])

    @property
    def is_as_stored(self) -> bool:
        """Its bytes in the file are those of the checkpoint."""
        return self.order is None and self.undo is None

    def of(self, whole: torch.Tensor) -> torch.Tensor:
        """What it fills."""
        return whole if self.take is None else self.take(whole)

    def in_order(self, packed: Bytes) -> Bytes:
        """Of the whole tensor's bytes its own, rows as the checkpoint has them.

        Whole rows move, so packed rows can: they are a fraction of the size.
        """
        if self.rows is None and self.order is None:
            return packed
        by_row = packed.reshape(self.tensor.shape[0], -1)
        chosen: Bytes = by_row[self.order] if self.rows is None else by_row[self.rows.start : self.rows.stop]
        return chosen


class Joint(NamedTuple):
    """Of a view of several matrices: how the rows of each are made of the rows of its parts, gate first."""

    is_alternating: bool
    """A row of each part in turn. Else all of one, then all of the next."""
    is_turned: bool
    """The view has inputs before outputs."""

    def rows(self, packed: Sequence[Bytes]) -> Bytes:
        """[X, R, bytes] each -> [X, all R, bytes]"""
        if not self.is_alternating:
            return np.concatenate(packed, axis=1)
        experts, _, row_bytes = packed[0].shape
        return np.stack(packed, axis=2).reshape(experts, -1, row_bytes)


@dataclass
class View:
    shape: Shape
    parts: list[Part] = field(default_factory=list)
    joint: Joint | None = None

    @classmethod
    def of(cls, tensor: GGUFTensor, *, order: Order | None = None, undo: Undo | None = None) -> View:
        """One whole tensor in its own shape."""
        return cls(tensor.shape, [Part(tensor=tensor, shape=tensor.shape, order=order, undo=undo)])

    @classmethod
    def as_shape(cls, tensor: GGUFTensor, shape: Shape, take: Take, undo: Undo | None = None) -> View:
        """One whole tensor in another shape. take: from that shape to the stored one."""
        return cls(shape, [Part(tensor=tensor, shape=tensor.shape, take=take, undo=undo)])


Views = dict[str, View]


class ExpertNames(NamedTuple):
    """Three matrices for each expert, called `mixture.experts.N.gate.weight` and so on."""

    mixture: str
    gate: str
    up: str
    down: str

    def add(self, views: Views, layer: str, matrix: str, suffix: str, tensor: GGUFTensor) -> None:
        """Add what the stacked tensor of `matrix` ("gate", "up" or "down") shows."""
        _need_dimensions(tensor, 3 if suffix == "weight" else 2)
        for expert in range(tensor.shape[0]):
            name = f"{layer}.{self.mixture}.experts.{expert}.{getattr(self, matrix)}.{suffix}"
            views[name] = View(
                tensor.shape[1:],
                [Part(tensor=tensor, rows=range(expert, expert + 1), shape=tensor.shape[1:])],
            )


class JoinedNames(NamedTuple):
    """Gate and up of all experts in one tensor, down in another."""

    mixture: str
    gate_up: str
    down: str
    is_alternating: bool
    """Gate 0, up 0, gate 1 and so on, with inputs before outputs. Else all gate rows, then all up rows."""

    def add(self, views: Views, layer: str, matrix: str, suffix: str, tensor: GGUFTensor) -> None:
        _need_dimensions(tensor, 3 if suffix == "weight" else 2)
        name = f"{layer}.{self.mixture}.{self.down if matrix == 'down' else self.gate_up}"
        name += "_bias" if suffix == "bias" else ""
        turn = self.is_alternating and suffix == "weight"
        shape = list(tensor.shape)
        if matrix != "down":
            shape[1] *= 2
        joint = Joint(self.is_alternating, turn)
        view = views.setdefault(name, View((shape[0], *(shape[:0:-1] if turn else shape[1:])), joint=joint))
        part = Part(tensor=tensor, shape=tensor.shape, take=self._take(matrix, turn))
        view.parts.insert(0 if matrix == "gate" else len(view.parts), part)

    def _take(self, matrix: str, turn: bool) -> Take:
        half = None if matrix == "down" else matrix

        def take(whole: torch.Tensor) -> torch.Tensor:
            rows = whole.transpose(1, 2) if turn else whole
            if half is None:
                return rows
            first = 0 if half == "gate" else 1
            if self.is_alternating:
                return rows[:, first::2]
            size = rows.shape[1] // 2
            return rows[:, first * size : (first + 1) * size]

        return take


_STACKED = re.compile(r"blk\.(0|[1-9][0-9]{0,6})\.ffn_(gate|up|down)_exps\.(weight|bias)", re.ASCII)
_APART = re.compile(r"blk\.(0|[1-9][0-9]{0,6})\.ffn_(gate|up|down)\.(0|[1-9][0-9]{0,3})\.weight", re.ASCII)
"""How the first files with experts had them."""
_SHARED_GATE = "ffn_gate_inp_shexp.weight"


def add_expert_tensor(
    views: Views, tensor: GGUFTensor, names: ExpertNames | JoinedNames, num_experts: int
) -> bool:
    """Add what a tensor of experts shows; False for other tensors. ModelFileError for too many experts."""
    stacked, apart = _STACKED.fullmatch(tensor.name), _APART.fullmatch(tensor.name)
    if stacked is not None:
        if tensor.shape[0] != num_experts:
            raise ModelFileError(
                f"The GGUF tensor {tensor.name!r} has {tensor.shape[0]} experts; its metadata say "
                f"{num_experts}."
            )
        names.add(views, f"model.layers.{stacked[1]}", stacked[2], stacked[3], tensor)
    elif apart is not None and isinstance(names, ExpertNames):
        name = f"model.layers.{apart[1]}.{names.mixture}.experts.{apart[3]}.{getattr(names, apart[2])}"
        views[f"{name}.weight"] = View.of(tensor)
    elif tensor.name.endswith(_SHARED_GATE) and len(tensor.shape) == 1:
        name = f"model.layers.{tensor.name.split('.')[1]}.mlp.shared_expert_gate.weight"
        views[name] = View.as_shape(tensor, (1, *tensor.shape), lambda whole: whole[0])
    else:
        return False
    return True


def _need_dimensions(tensor: GGUFTensor, number: int) -> None:
    if len(tensor.shape) != number:
        raise ModelFileError(
            f"The GGUF tensor {tensor.name!r} has the shape {list(tensor.shape)}; {number} dimensions are "
            "expected, the experts first."
        )


def out_of_pairs(num_rows: int, num_heads: int) -> Order:
    """The order that brings the rows of each head from neighbouring pairs to halves: 0, 2, 1, 3."""
    rows = np.arange(num_rows).reshape(num_heads, -1, 2)
    return rows.swapaxes(1, 2).flatten()


def take_off(offset: float) -> Undo:
    """Of a file that adds it."""

    def undo(weights: Floats) -> None:
        weights -= np.float32(offset)

    return undo
