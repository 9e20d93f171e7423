"""How tensors of a GGUF file show themselves under Hugging Face names: as they are, in slices, or joined.

GGUF keeps the experts of a layer stacked, gate, up and down apart. Hugging Face has a tensor for each expert,
or stacks them in an order of its own. A `View` is one such tensor: which stored tensors fill which part.

X experts, F inner width, E width.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from octavo.base.errors import ModelFileError
from octavo.weights.gguf.reader import GGUFTensor
from octavo.weights.views import Shape

if TYPE_CHECKING:
    import torch

Take = Callable[["torch.Tensor"], "torch.Tensor"]
"""From a whole tensor of Hugging Face to the part that a stored one fills, in the stored one's shape."""


@dataclass(frozen=True)
class Part:
    tensor: GGUFTensor
    expert: int | None = None
    """Only this slice of it."""
    take: Take | None = None
    """None: all of the view."""

    @property
    def shape(self) -> Shape:
        return self.tensor.shape if self.expert is None else self.tensor.shape[1:]

    @property
    def start(self) -> int:
        """Byte in the file."""
        slice_bytes = 0 if self.expert is None else self.tensor.num_bytes // self.tensor.shape[0]
        return self.tensor.start + (self.expert or 0) * slice_bytes

    def of(self, whole: torch.Tensor) -> torch.Tensor:
        """What it fills."""
        return whole if self.take is None else self.take(whole)


@dataclass
class View:
    shape: Shape
    parts: list[Part] = field(default_factory=list)


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
            views[name] = View(tensor.shape[1:], [Part(tensor, expert)])


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
        view = views.setdefault(name, View((shape[0], *(shape[:0:-1] if turn else shape[1:]))))
        view.parts.append(Part(tensor, take=self._take(matrix, turn)))

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
        views[f"{name}.weight"] = View(tensor.shape, [Part(tensor)])
    elif tensor.name.endswith(_SHARED_GATE) and len(tensor.shape) == 1:
        name = f"model.layers.{tensor.name.split('.')[1]}.mlp.shared_expert_gate.weight"
        views[name] = View((1, *tensor.shape), [Part(tensor, take=lambda whole: whole[0])])
    else:
        return False
    return True


def _need_dimensions(tensor: GGUFTensor, number: int) -> None:
    if len(tensor.shape) != number:
        raise ModelFileError(
            f"The GGUF tensor {tensor.name!r} has the shape {list(tensor.shape)}; {number} dimensions are "
            "expected, the experts first."
        )
