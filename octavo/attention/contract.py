"""What an attention backend is: capabilities, `plan` once per step, `run` once per layer.

A model states needs, a backend capabilities; what is missing is the error text (see choose.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Protocol

import torch

from octavo.attention.step_view import StepView


class Capability(StrEnum):
    """What a model and a device may need of a backend."""

    FULL = "full"
    SLIDING_WINDOW = "sliding_window"
    GROUPED_HEADS = "grouped_heads"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, kw_only=True)
class PageLayout:
    """How the pages of one KV group lie in their array of rows [num_blocks * rows_per_page, K * D].

    A row holds one token's keys, or its values, of all heads. A block's keys are the first
    `block_size` rows of its page; its values begin half a page later.
    """

    block_size: int
    rows_per_page: int
    num_kv_heads: int
    head_dim: int
    window: int | None
    dtype: torch.dtype
    device: torch.device


class StepPlan(Protocol):
    """One step, planned. Good for every layer of its group."""

    def run(
        self,
        q_THD: torch.Tensor,
        k_TKD: torch.Tensor,
        v_TKD: torch.Tensor,
        pages: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """Write this step's keys and values into `pages`, attend, return [T, H * D]."""


class AttentionBackend(Protocol):
    """Plans steps for the layers of one KV group."""

    capabilities: ClassVar[frozenset[Capability]]

    def __init__(self, layout: PageLayout) -> None: ...

    def plan(self, view: StepView) -> StepPlan:
        """Host work, once per step and group."""


class Attend(Protocol):
    """What a layer sees of all this."""

    def __call__(
        self, layer: int, q_THD: torch.Tensor, k_TKD: torch.Tensor, v_TKD: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Attention of the `layer`-th attention layer for this step's tokens: [T, H * D]."""
