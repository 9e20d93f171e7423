"""What an attention backend is: capabilities, `plan` once per step, `run` once per layer.

A model states needs, a backend capabilities; what is missing is the error text (see choose.py).

T tokens, O = (H + 2 K) * D for H query heads and K KV heads of width D, B blocks, N tokens per block.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, NamedTuple, Protocol

import torch

from octavo.attention.step_view import StepView
from octavo.ops.cpu.engine import NativeEngine
from octavo.ops.paged_plain import AttentionTerms


class Capability(StrEnum):
    """What a model and a device may need of a backend."""

    FULL = "full"
    SLIDING_WINDOW = "sliding_window"
    LATENT = "latent"
    """Keys that hold their values."""
    SCORE_TERMS = "score_terms"
    """Soft caps, sinks and linear biases."""
    GROUPED_HEADS = "grouped_heads"
    DETERMINISTIC = "deterministic"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    OTHER_KV_DTYPE = "other_kv_dtype"
    """Keys and values in other numbers than the model computes in."""
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionLayer:
    """What is true of one attention layer in every step."""

    index: int
    """Its number among the model's attention layers."""
    num_heads: int
    num_kv_heads: int
    head_dim: int
    terms: AttentionTerms
    rotation_PD: torch.Tensor | None
    """layers/rope.rotation_table; None: positions are not rotated."""
    q_norm_D: torch.Tensor | None
    k_norm_D: torch.Tensor | None
    """Weights of RMS norms per head, before the rotation."""
    norm_epsilon: float

    @property
    def out_width(self) -> int:
        """Numbers per token that attention gives."""
        return self.num_heads * self.head_dim

    @property
    def work_width(self) -> int:
        """Numbers per token that it takes beside its projections and its result."""
        return 0


@dataclass(frozen=True, kw_only=True)
class PageLayout:
    """How the pages of one KV group lie in their array of rows [num_blocks * rows_per_page, K * (D + scale)].

    A page's keys come first, its values begin half a page later, or are columns of the keys (value_dim). The
    tokens of a block lie one after the other with all their heads, or, head by head, with all their tokens
    (`is_head_major`, the backend's choice). Keys may be turned: first number of all tokens of a head, then
    the second. Behind the numbers of a head come its tokens' scales, where numbers have them.
    """

    block_size: int
    rows_per_page: int
    num_kv_heads: int
    head_dim: int
    window: int | None
    dtype: torch.dtype
    device: torch.device
    value_dim: int | None = None
    """The first columns of a key, which are its value; None: values have rows of their own."""
    is_head_major: bool = False
    turns_keys: bool = False
    """Only where pages are head-major."""
    scale_bytes: int = 0
    """Of the float32 scale that each key and each value of a head has; only where pages are head-major."""
    has_plain_softmax: bool = True
    """No layer of the group has a soft cap, sinks or linear biases."""

    def pages(self, rows_RC: torch.Tensor) -> Pages:
        size, heads, width = self.block_size, self.num_kv_heads, self.head_dim
        scale = self.scale_bytes // self.dtype.itemsize
        page = self.rows_per_page * heads * (width + scale)
        shape = (rows_RC.numel() // page, heads, size, width)
        head = size * (width + scale)
        inner = (head, width, 1) if self.is_head_major else (width, heads * width, 1)
        key_inner = (head, 1, size) if self.turns_keys else inner
        flat = rows_RC.view(-1)
        keys_BKND = flat.as_strided(shape, (page, *key_inner))
        if self.value_dim is not None:
            return Pages(rows_RC, keys_BKND, keys_BKND[..., : self.value_dim])
        return Pages(
            rows_RC, keys_BKND, flat.as_strided(shape, (page, *inner), flat.storage_offset() + page // 2)
        )


class Pages(NamedTuple):
    """The KV cache of one layer."""

    rows_RC: torch.Tensor
    """[num_blocks * rows_per_page, K * (D + scale)]"""
    keys_BKND: torch.Tensor
    values_BKND: torch.Tensor
    """Views of the same memory."""


class StepPlan(Protocol):
    """One step, planned. Good for every layer of its group."""

    def run(self, layer: AttentionLayer, qkv_TO: torch.Tensor, pages: Pages) -> torch.Tensor:
        """Norm and rotate the heads, write this step's keys and values into `pages`, attend.

        [T, layer.out_width]
        """


class AttentionBackend(Protocol):
    """Plans steps for the layers of one KV group."""

    capabilities: ClassVar[frozenset[Capability]]
    is_head_major: ClassVar[bool]
    turns_keys: ClassVar[bool]
    """How it wants its pages (see PageLayout)."""

    long_prompt: int | None
    """From how many tokens on it wants whole prompts apart (see StepView); None: it makes no difference."""

    def __init__(self, layout: PageLayout, limits: StepLimits) -> None: ...

    def plan(self, view: StepView) -> StepPlan:
        """Host work, once per step and group."""


@dataclass(frozen=True, kw_only=True)
class StepLimits:
    """The largest step there will be, for whoever sets memory aside."""

    max_seqs: int
    max_tokens: int
    num_heads: int
    deterministic: bool
    chunk_attention: str
    """Whose kernel attends chunks: triton or flash-attn."""
    native: NativeEngine | None = None
    """Compiled kernels on a CPU, where there are some."""


class Attend(Protocol):
    """What a layer sees of all this."""

    def __call__(self, layer: AttentionLayer, qkv_TO: torch.Tensor) -> torch.Tensor:
        """Attention of this layer for this step's tokens: [T, layer.out_width]."""
