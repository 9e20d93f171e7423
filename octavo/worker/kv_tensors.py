"""KVTensors: the pages of the KV cache and where each layer finds its own."""

from __future__ import annotations

import torch

from octavo.attention.contract import PageLayout, Pages
from octavo.base.errors import ConfigError
from octavo.messages.kv import KVPlan
from octavo.worker.memory import gib


class KVTensors:
    """Tensor i holds page b of the i-th layer of whichever group owns block b.

    Memory is only reserved: the system gives pages as they are written, and what is not written yet
    holds anything, NaN included.
    """

    def __init__(
        self, plan: KVPlan, *, dtype: torch.dtype, device: torch.device, is_head_major: bool, turns_keys: bool
    ) -> None:
        page_size = plan.page_bytes // dtype.itemsize
        sizes = [plan.num_blocks * page_size] * plan.num_tensors
        tensors = _reserved(sizes, dtype, device)
        self.layouts: list[PageLayout] = []
        """One per group."""
        pages: dict[int, Pages] = {}
        groups: dict[int, int] = {}
        for number, group in enumerate(plan.groups):
            spec = group.spec
            row = spec.num_kv_heads * (spec.head_dim + spec.scale_bytes // dtype.itemsize)
            assert spec.dtype_bytes == dtype.itemsize, "the plan counts the bytes of these numbers"
            rows_per_token = spec.bytes_per_token // (row * dtype.itemsize)
            assert page_size % (rows_per_token * row) == 0, "a page holds whole rows of keys and of values"
            assert page_size // row >= rows_per_token * plan.block_size, "a page holds a block"
            self.layouts.append(
                PageLayout(
                    block_size=plan.block_size,
                    rows_per_page=page_size // row,
                    num_kv_heads=spec.num_kv_heads,
                    head_dim=spec.head_dim,
                    value_dim=spec.value_dim,
                    window=spec.window,
                    dtype=dtype,
                    device=device,
                    is_head_major=is_head_major,
                    turns_keys=turns_keys,
                    scale_bytes=spec.scale_bytes,
                    has_plain_softmax=spec.has_plain_softmax,
                )
            )
            for tensor, layer in zip(tensors, group.layers, strict=False):
                pages[layer] = self.layouts[-1].pages(tensor.view(-1, row))
                groups[layer] = number
        self.pages = [pages[layer] for layer in sorted(pages)]
        """By attention layer."""
        self.groups = [groups[layer] for layer in sorted(groups)]
        """By attention layer: the number of its group."""


def _reserved(sizes: list[int], dtype: torch.dtype, device: torch.device) -> list[torch.Tensor]:
    """Raises ConfigError where a CPU's system promises no such memory; of a GPU's it was asked before."""
    try:
        return [torch.empty(size, dtype=dtype, device=device) for size in sizes]
    except RuntimeError as error:
        if device.type != "cpu":
            raise
        raise ConfigError(
            f"The KV cache takes {gib(sum(sizes) * dtype.itemsize)}, which the system does not give. Lower "
            "num_blocks or kv_cache_memory_bytes, or leave them out for as many blocks as fit.",
            param="num_blocks",
        ) from error
