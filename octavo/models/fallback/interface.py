"""The two doors through which transformers calls us: attention and experts, by the names registered here.

A model's attention layers call the function registered under the name in its config; whoever runs the model
says with `answered_by` who answers. T tokens, H query heads, K KV heads, D head width, E width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Protocol

import torch
from torch import nn

PAGED = "octavo"
"""Attention without masks: paged attention knows itself which tokens belong together."""
OBSERVED = "octavo_observed"
"""Attention that is told by which rule the model would mask (see probe.py)."""

GROUPED_ALIGNMENT = 16
"""Bytes that rows are a multiple of, for torch's grouped products in half precision."""

MaskRule = Callable[..., torch.Tensor]
"""(sequence, head, query's position, key's position), all tensors -> bool tensor: whether it is seen."""


class Answer(Protocol):
    def __call__(
        self,
        module: nn.Module,
        q_1HTD: torch.Tensor,
        k_1KTD: torch.Tensor,
        v_1KTD: torch.Tensor,
        mask: torch.Tensor | None,
        **terms: Any,
    ) -> torch.Tensor:
        """[1, T, H, D]"""


_answer: ContextVar[Answer] = ContextVar("answer")


@contextmanager
def answered_by(answer: Answer) -> Iterator[None]:
    """Attention layers that run in this context, in this thread, are answered by `answer`."""
    token = _answer.set(answer)
    try:
        yield
    finally:
        _answer.reset(token)


@cache
def register() -> None:
    """Make the names known to transformers. Needed once in a process."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    AttentionInterface.register(PAGED, _attend)
    AttentionInterface.register(OBSERVED, _attend)
    AttentionMaskInterface.register(OBSERVED, _note_rule)
    ALL_EXPERTS_FUNCTIONS.register(PAGED, _experts)


def rule_of(mask: torch.Tensor) -> MaskRule | None:
    """The rule of an observed model's mask; None if the model has changed the mask since."""
    return getattr(mask, "octavo_rule", None)


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **terms: Any,
) -> tuple[torch.Tensor, None]:
    return _answer.get()(module, query, key, value, attention_mask, **terms), None


def _note_rule(*, q_length: int, kv_length: int, mask_function: MaskRule, **_: Any) -> torch.Tensor:
    """Instead of a mask: one without numbers that carries its rule."""
    mask = torch.empty(1, 1, q_length, kv_length, dtype=torch.bool, device="meta")
    mask.octavo_rule = mask_function  # type: ignore[attr-defined]
    return mask


def _experts(
    module: nn.Module, x_TE: torch.Tensor, expert_TN: torch.Tensor, share_TN: torch.Tensor
) -> torch.Tensor:
    """All experts' tokens in grouped products; without numbers only the shape."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    if x_TE.device.type == "meta":
        return torch.empty_like(x_TE)
    widths = {width for weight in module.parameters() if weight.ndim == 3 for width in weight.shape[1:]}
    is_aligned = all(width * x_TE.itemsize % GROUPED_ALIGNMENT == 0 for width in widths)
    how = "grouped_mm" if is_aligned or x_TE.dtype == torch.float32 else "batched_mm"
    computed_TE: torch.Tensor = ALL_EXPERTS_FUNCTIONS[how](module, x_TE, expert_TN, share_TN)
    return computed_TE
