"""Memory for what is left of a skeleton, and the numbers that no checkpoint has (rotary frequencies)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from octavo.base.errors import ModelFileError
from octavo.layers.placement import Placement


def fill(skeleton: Any, placement: Placement) -> None:
    """Give every tensor that is still without numbers its memory; compute buffers that are not stored.

    Raises ModelFileError for a buffer that transformers does not compute again.
    """
    made: dict[int, nn.Parameter] = {}
    unstored: list[tuple[nn.Module, str]] = []
    for module in skeleton.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.device.type == "meta":
                # Two names of one parameter stay so.
                if id(parameter) not in made:
                    room = torch.empty_like(parameter, device=placement.device)
                    made[id(parameter)] = nn.Parameter(room, requires_grad=False)
                module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.device.type == "meta":
                module._buffers[name] = _unset(buffer, placement.device)
                if name in module._non_persistent_buffers_set:
                    unstored.append((module, name))
    with torch.no_grad():
        for module in {module: None for module, _ in unstored}:
            skeleton._init_weights(module)
    for module, name in unstored:
        buffer = module._buffers[name]
        assert buffer is not None, "it was one above"
        if _is_unset(buffer):
            raise ModelFileError(
                f"transformers' {type(skeleton).__name__} cannot run here: it does not compute the "
                f"{name} of its {type(module).__name__} once more after it was built."
            )


def _unset(buffer: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Of the same shape, full of a number that nobody computes."""
    if buffer.dtype == torch.bool:
        return torch.zeros_like(buffer, device=device)
    return torch.full_like(buffer, _impossible(buffer.dtype), device=device)


def _is_unset(buffer: torch.Tensor) -> bool:
    if buffer.dtype == torch.bool:
        return False
    if buffer.is_floating_point():
        return bool(buffer.isnan().any())
    return bool((buffer == _impossible(buffer.dtype)).any())


def _impossible(dtype: torch.dtype) -> float | int:
    return float("nan") if dtype.is_floating_point else torch.iinfo(dtype).min
