"""Architecture: how one kind of model is stored in GGUF and called by Hugging Face."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from octavo.weights.gguf import names
from octavo.weights.gguf.keys import Keys
from octavo.weights.gguf.reader import GGUFTensor
from octavo.weights.gguf.views import ExpertNames, JoinedNames, Views

Config = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How one architecture is stored in GGUF and called by Hugging Face."""

    class_name: str
    model_type: str
    layer_names: Mapping[str, str]
    layers: str = "model.layers"
    """What names of layers begin with."""
    outside_names: Mapping[str, str] = field(default_factory=lambda: names.OUTSIDE_LAYERS)
    """Of tensors that belong to no layer."""
    has_interleaved_rope: bool = False
    """q and k rows are stored permuted, for rotation of neighbouring pairs."""
    experts: ExpertNames | JoinedNames | None = None
    """How it has experts, if it may have any."""
    add_own_tensor: Callable[[Views, GGUFTensor, str | None, Config], bool] | None = None
    """Adds what a tensor shows that only it has, or has in another form than Hugging Face under the name
    given; False for other tensors.
    """
    head_dim: Callable[[Keys], int] | None = None
    """Where the width of heads is not that of their keys and values."""
    has_yarn_log_multiplier: bool = False
    """Whether it stretches scores as that says (see rope.py)."""
    norm_offset: float = 0.0
    """What the file adds to the weights of every norm."""
    epsilon: str = "rms_norm_eps"
    """What configs call that of norms; of layer norms where it is another."""
    may_rotate_part: bool = False
    """Of each head."""
    attends: bool = True
    """Some layers do."""
    extend: Callable[[Config, Keys], None] | None = None
    """Adds config entries of this architecture alone."""

    def find_name(self, gguf_name: str) -> str | None:
        """Hugging Face's; None for tensors that it does not have under another name."""
        return names.to_hugging_face(gguf_name, self.layer_names, self.layers, self.outside_names)
