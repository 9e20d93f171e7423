"""Small transfers between host and device that never make the host wait.

On CUDA they go through pinned memory: a copy from or to ordinary memory would wait for everything
enqueued before it. Pinned memory is handed out again only after the copies that use it are done, so
nothing here has to be kept alive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

Values = Sequence[int] | Sequence[float] | Sequence[Sequence[int]] | NDArray[Any]


def upload(values: Values, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of these values on the device, for what is enqueued after it."""
    if device.type != "cuda":
        return torch.tensor(values, dtype=dtype, device=device)
    return torch.tensor(values, dtype=dtype).pin_memory().to(device, non_blocking=True)


class Download:
    """A tensor on its way to the host, which asks for it once the work enqueued so far is done.

    The copy takes its place in the current stream here and now: what is written to the tensor
    afterwards does not show.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._host = tensor
        if tensor.device.type == "cuda":
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)

    def read(self) -> Tensor:
        """The values, in host memory. On CUDA the caller has waited for the stream first."""
        return self._host.cpu()
