"""RMS norm, with or without an addition before it. T tokens, E width.

One program per row, the whole row in registers: a row's result does not depend on the others. Limits on
an H100: at one token the launch and one trip to memory, about 2 us (1.5 with dependent launch); at many
tokens the bandwidth, 8 bytes an element with the addition in a 2-byte type: T = 8192, E = 4096 moves
268 MB in 90 us.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl

from octavo.ops.triton.pdl import pdl_options


def rms_norm(x_TE: torch.Tensor, weight_E: torch.Tensor, epsilon: float) -> torch.Tensor:
    """The norm alone."""
    normed_TE = torch.empty_like(x_TE, memory_format=torch.contiguous_format)
    _launch(x_TE, None, weight_E, epsilon, None, normed_TE)
    return normed_TE


def add_rms_norm(
    x_TE: torch.Tensor,
    delta_TE: torch.Tensor,
    weight_E: torch.Tensor,
    epsilon: float,
    num_warps: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """x + delta and its norm. num_warps: for measurements; the norm's last bits depend on it."""
    sum_TE = torch.empty_like(x_TE, memory_format=torch.contiguous_format)
    normed_TE = torch.empty_like(sum_TE)
    _launch(x_TE, delta_TE, weight_E, epsilon, sum_TE, normed_TE, num_warps)
    return sum_TE, normed_TE


def _launch(
    x_TE: torch.Tensor,
    delta_TE: torch.Tensor | None,
    weight_E: torch.Tensor,
    epsilon: float,
    sum_TE: torch.Tensor | None,
    normed_TE: torch.Tensor,
    num_warps: int | None = None,
) -> None:
    num_rows, width = x_TE.shape
    assert x_TE.stride(1) == 1 and (delta_TE is None or delta_TE.stride(1) == 1), "rows lie in one piece"
    padded_width = triton.next_power_of_2(width)
    _rms_norm_kernel[(num_rows,)](
        x_TE,
        delta_TE,
        weight_E,
        sum_TE,
        normed_TE,
        x_TE.stride(0),
        0 if delta_TE is None else delta_TE.stride(0),
        epsilon,
        WIDTH=width,
        PADDED_WIDTH=padded_width,
        num_warps=num_warps or usual_warps(padded_width),
        **pdl_options(x_TE.device),
    )


def usual_warps(padded_width: int) -> int:
    """Eight elements a thread, one wide load of a 2-byte type, as long as a program may have the threads."""
    return min(max(padded_width // 256, 1), 32)


@triton.jit
def _rms_norm_kernel(  # noqa: PLR0913
    x_ptr,
    delta_ptr,  # None: nothing is added
    weight_ptr,
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
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0)
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    x = tl.load(x_ptr + row * x_stride + columns, mask=inside, other=0.0)
    if delta_ptr is not None:
        delta = tl.load(delta_ptr + row * delta_stride + columns, mask=inside, other=0.0)
        x = (x.to(tl.float32) + delta.to(tl.float32)).to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + row * WIDTH + columns, x, mask=inside)
    x = x.to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, 0) / WIDTH + epsilon)
    # Rounded before the weight, as the plain form does and checkpoints expect.
    normed = (x * scale).to(weight.dtype).to(tl.float32) * weight.to(tl.float32)
    tl.store(normed_ptr + row * WIDTH + columns, normed, mask=inside)
