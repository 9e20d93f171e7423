"""Layer norm, with or without an addition before it. T tokens, E width.

One program per row, the whole row in registers, as in norm.py; its limits are the same. The variance is
that of the distances to the mean, not a difference of two large sums.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl

from octavo.ops.triton.norm import usual_warps
from octavo.ops.triton.pdl import pdl_options


def layer_norm(
    x_TE: torch.Tensor, weight_E: torch.Tensor, bias_E: torch.Tensor | None, epsilon: float
) -> torch.Tensor:
    """The norm alone."""
    normed_TE = torch.empty_like(x_TE, memory_format=torch.contiguous_format)
    _launch(x_TE, None, weight_E, bias_E, epsilon, None, normed_TE)
    return normed_TE


def add_layer_norm(
    x_TE: torch.Tensor,
    delta_TE: torch.Tensor,
    weight_E: torch.Tensor,
    bias_E: torch.Tensor | None,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """x + delta and its norm."""
    sum_TE = torch.empty_like(x_TE, memory_format=torch.contiguous_format)
    normed_TE = torch.empty_like(sum_TE)
    _launch(x_TE, delta_TE, weight_E, bias_E, epsilon, sum_TE, normed_TE)
    return sum_TE, normed_TE


def _launch(
    x_TE: torch.Tensor,
    delta_TE: torch.Tensor | None,
    weight_E: torch.Tensor,
    bias_E: torch.Tensor | None,
    epsilon: float,
    sum_TE: torch.Tensor | None,
    normed_TE: torch.Tensor,
) -> None:
    num_rows, width = x_TE.shape
    assert x_TE.stride(1) == 1 and (delta_TE is None or delta_TE.stride(1) == 1), "rows lie in one piece"
    padded_width = triton.next_power_of_2(width)
    _layer_norm_kernel[(num_rows,)](
        x_TE,
        delta_TE,
        weight_E,
        bias_E,
        sum_TE,
        normed_TE,
        x_TE.stride(0),
        0 if delta_TE is None else delta_TE.stride(0),
        epsilon,
        WIDTH=width,
        PADDED_WIDTH=padded_width,
        num_warps=usual_warps(padded_width),
        **pdl_options(x_TE.device),
    )


@triton.jit
def _layer_norm_kernel(  # noqa: PLR0913
    x_ptr,
    delta_ptr,  # None: nothing is added
    weight_ptr,
    bias_ptr,  # None: nothing is added behind
    sum_ptr,
    normed_ptr,
    x_stride,
    delta_stride,
    epsilon,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, PADDED_WIDTH)
    inside = columns < WIDTH
    # Weights are written by nobody, so they are fetched while the kernel before this one ends.
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    x = tl.load(x_ptr + row * x_stride + columns, mask=inside, other=0.0)
    if delta_ptr is not None:
        delta = tl.load(delta_ptr + row * delta_stride + columns, mask=inside, other=0.0)
        x = (x.to(tl.float32) + delta.to(tl.float32)).to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + row * WIDTH + columns, x, mask=inside)
    x = x.to(tl.float32)
    centred = tl.where(inside, x - tl.sum(x, 0) / WIDTH, 0.0)
    normed = centred * tl.rsqrt(tl.sum(centred * centred, 0) / WIDTH + epsilon) * weight
    if bias_ptr is not None:
        normed += tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed_ptr + row * WIDTH + columns, normed, mask=inside)
