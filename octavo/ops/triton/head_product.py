"""x_h @ W_h^T whose rows are the same bits in any batch. T tokens, H heads, I input, O output.

Why that holds: see matmul_invariant. Tiles do not depend on the number of tokens, and every output is one
program's work, in steps of BLOCK_I from column 0.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit(do_not_specialize=["tokens"])
def _head_product_kernel(  # noqa: PLR0913
    x_ptr,
    weight_ptr,
    out_ptr,
    tokens,
    x_stride,
    x_head_stride,
    head_stride,
    output_stride,
    input_stride,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    token_T = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    output_O = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    head = tl.program_id(2)
    i_I = tl.arange(0, BLOCK_I)
    token_T1 = token_T[:, None].to(tl.int64)
    wanted_T1 = token_T1 < tokens
    real_O = output_O < OUTPUTS
    x_ptrs = x_ptr + token_T1 * x_stride + head * x_head_stride + i_I[None, :]
    weight_ptrs = weight_ptr + head.to(tl.int64) * head_stride + output_O[None, :] * output_stride
    y_TO = tl.zeros([BLOCK_T, BLOCK_O], tl.float32)
    for start in range(0, INPUTS, BLOCK_I):
        inside_I = start + i_I < INPUTS
        x_TI = tl.load(x_ptrs + start, mask=wanted_T1 & inside_I[None, :], other=0.0)
        weight_IO = tl.load(
            weight_ptrs + (start + i_I)[:, None] * input_stride,
            mask=inside_I[:, None] & real_O[None, :],
            other=0.0,
        )
        y_TO = tl.dot(x_TI, weight_IO, y_TO, input_precision="ieee")
    out_ptrs = out_ptr + (token_T1 * tl.num_programs(2) + head) * OUTPUTS + output_O[None, :]
    tl.store(out_ptrs, y_TO.to(out_ptr.dtype.element_ty), mask=wanted_T1 & real_O[None, :])


def head_product_invariant(x_THI: torch.Tensor, weight_HOI: torch.Tensor) -> torch.Tensor:
    """What `octavo.ops.head_product` says."""
    num_tokens, num_heads, inputs = x_THI.shape
    outputs = weight_HOI.shape[1]
    assert x_THI.stride(2) == 1, "a head's inputs lie in one piece"
    out_THO = x_THI.new_empty(num_tokens, num_heads, outputs)
    if num_tokens == 0:
        return out_THO
    block_o, block_i = (64, 32) if x_THI.element_size() > 2 else (128, 64)
    _head_product_kernel[(triton.cdiv(num_tokens, 64), triton.cdiv(outputs, block_o), num_heads)](
        x_THI,
        weight_HOI,
        out_THO,
        num_tokens,
        x_THI.stride(0),
        x_THI.stride(1),
        *weight_HOI.stride(),
        INPUTS=inputs,
        OUTPUTS=outputs,
        BLOCK_T=64,
        BLOCK_O=block_o,
        BLOCK_I=block_i,
        num_warps=4,
        num_stages=3,
    )
    return out_THO
