"""Logits processors: the caller's own functions `(output_token_ids, logits_V) -> logits_V`.

Only rows that brought some are visited. What a function does wrong fails its own row. The functions run
while the step is being put together and read tokens of the step before: on a GPU this is where the
room waits for the device, and only in steps with such rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from octavo.messages.params import SamplingParams
from octavo.worker.sampling.history import History

Processor = Callable[[list[int], Any], Any]


class LogitsProcessors:
    """Processors by row, run in the order given."""

    def __init__(self) -> None:
        self._processors: dict[int, list[Processor]] = {}

    def add_row(self, row: int, params: SamplingParams) -> None:
        if params.logits_processors:
            self._processors[row] = list(params.logits_processors)

    def remove_row(self, row: int) -> None:
        self._processors.pop(row, None)

    def used_by(self, rows: Sequence[int]) -> bool:
        return bool(self._processors) and any(row in self._processors for row in rows)

    def apply(self, logits_SV: Tensor, rows: Sequence[int], history: History) -> dict[int, str]:
        """Change logits in place; return what went wrong by place. Failed rows keep their logits."""
        failed: dict[int, str] = {}
        if not self._processors:
            return failed
        for place, row in enumerate(rows):
            if row not in self._processors:
                continue
            # Functions may write into what they get: they get copies.
            result = _run(self._processors[row], history.output_token_ids(place), logits_SV[place].clone())
            if isinstance(result, str):
                failed[place] = result
            else:
                logits_SV[place] = result
        return failed


def _run(processors: list[Processor], output_token_ids: list[int], logits_V: Tensor) -> Tensor | str:
    """The processed logits, or what is wrong with them."""
    shape, device = logits_V.shape, logits_V.device
    for number, processor in enumerate(processors):
        name = f"logits_processors[{number}]"
        try:
            result = processor(list(output_token_ids), logits_V)
        except Exception as error:
            return f"{name} raised {type(error).__name__}: {error}"
        if not isinstance(result, Tensor) or result.shape != shape or not result.is_floating_point():
            got = (
                f"{result.dtype} {list(result.shape)}"
                if isinstance(result, Tensor)
                else type(result).__name__
            )
            return f"{name} returned {got}; it must return a floating-point tensor of shape {list(shape)}."
        logits_V = result.detach().to(device=device, dtype=torch.float32)
    return logits_V
