"""DenseLayers: what sentence-transformers may put behind the pooling. S texts, E width."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from octavo.base.errors import ModelFileError
from octavo.base.files import confined, has_file
from octavo.layers.activations import Activation
from octavo.layers.linear import Linear
from octavo.layers.placement import Placement
from octavo.layers.slot import WeightSlot
from octavo.weights.pickled import refuse_pickles_in
from octavo.weights.pooling_modules import read_dense
from octavo.weights.safetensors import SafetensorsFile

_ACTIVATIONS: dict[str, Activation] = {
    "GELU": functional.gelu,
    "Identity": lambda x: x,
    "ReLU": functional.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
}
"""By the last part of their name in torch."""


class DenseLayers(nn.Module):
    """A Head whose weights are in folders of their own, and are read when it is built."""

    def __init__(self, folder: Path, names: tuple[str, ...], placement: Placement) -> None:
        """names: of the layers' folders. Raises ModelFileError."""
        super().__init__()
        self._activations: list[Activation] = []
        self._linears: list[Linear] = []
        for name in names:
            facts = read_dense(folder, name)
            if facts.activation not in _ACTIVATIONS:
                raise ModelFileError(
                    f"The activation of the Dense module in {name[:80]!r} is {facts.activation[:40]!r}; "
                    f"known are {', '.join(_ACTIVATIONS)}."
                )
            linear = Linear(facts.width_in, [facts.width_out], bias=facts.has_bias, placement=placement)
            if not has_file(folder, f"{name}/model.safetensors"):
                refuse_pickles_in(confined(folder, name))
            _fill(linear, SafetensorsFile(confined(folder, name, "model.safetensors")), name)
            self._activations.append(_ACTIVATIONS[facts.activation])
            self._linears.append(linear)
        self.layers = nn.ModuleList(self._linears)

    def forward(self, pooled_SE: torch.Tensor) -> torch.Tensor:
        pooled_SE = pooled_SE.to(self._linears[0].weight.dtype)
        for linear, activation in zip(self._linears, self._activations, strict=True):
            pooled_SE = activation(linear.forward(pooled_SE))
        return pooled_SE

    def slots(self) -> list[WeightSlot]:
        """None of the checkpoint's own."""
        return []


class StoredDense(nn.Module):
    """The same as products alone, whose weights are among the checkpoint's."""

    def __init__(self, layers: Sequence[tuple[str, int, int]], placement: Placement) -> None:
        """layers: name, width in and out of each."""
        super().__init__()
        self._named = [(name, Linear(come, [go], placement=placement)) for name, come, go in layers]
        self.layers = nn.ModuleList(linear for _, linear in self._named)

    def forward(self, pooled_SE: torch.Tensor) -> torch.Tensor:
        for _, linear in self._named:
            pooled_SE = linear.forward(pooled_SE.to(linear.weight.dtype))
        return pooled_SE

    def slots(self) -> list[WeightSlot]:
        return [slot for name, linear in self._named for slot in linear.slots(name)]


def _fill(linear: Linear, file: SafetensorsFile, folder: str) -> None:
    for slot in linear.slots("linear"):
        stored = file.tensors.get(slot.name)
        if stored is None or stored.shape != tuple(slot.target.shape):
            found = "no such tensor" if stored is None else list(stored.shape)
            raise ModelFileError(
                f"{folder[:80]!r} has {found} for {slot.name!r}; its config says {list(slot.target.shape)}."
            )
        slot.target.copy_(file.load(slot.name))
