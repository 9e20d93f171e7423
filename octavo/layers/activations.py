"""Activations by the name that configs give them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional

from octavo.ops.by_rows import by_rows

Activation = Callable[[torch.Tensor], torch.Tensor]

_GELU: Activation = partial(by_rows, functional.gelu)
_TANH_GELU: Activation = partial(by_rows, partial(functional.gelu, approximate="tanh"))
ACTIVATIONS: dict[str, Activation] = {
    "gelu": _GELU,
    "gelu_fast": _TANH_GELU,
    "gelu_new": _TANH_GELU,
    "gelu_pytorch_tanh": _TANH_GELU,
    "relu": functional.relu,
    "relu2": lambda x: functional.relu(x).square(),
    "silu": partial(by_rows, functional.silu),
}
"""By the name that configs give them. Three of the names say one formula."""
