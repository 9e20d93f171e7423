"""Ops by name, for the common conformance tests.

experts, head_product, matmul_invariant, route, ssd, gated_delta and sampling's choose_tokens have tests of
their own: Triton's interpreter cannot multiply bfloat16 matrices, and tokens and experts are not compared as
numbers are.
"""

from __future__ import annotations

from typing import Any

from octavo.base.table import LazyTable
from octavo.ops.contract import Op

OPS: LazyTable[Op[..., Any]] = LazyTable(
    "op",
    {
        "add_layer_norm": "octavo.ops.layer_norm:add_layer_norm",
        "add_rms_norm": "octavo.ops.norm:add_rms_norm",
        "append_tokens": "octavo.ops.step:append_tokens",
        "causal_conv": "octavo.ops.causal_conv:causal_conv",
        "gated_gelu": "octavo.ops.activation:gated_gelu",
        "gated_gelu_erf": "octavo.ops.activation:gated_gelu_erf",
        "gated_silu": "octavo.ops.activation:gated_silu",
        "gated_rms_norm": "octavo.ops.gated_norm:gated_rms_norm",
        "gather_step": "octavo.ops.step:gather_step",
        "layer_norm": "octavo.ops.layer_norm:layer_norm",
        "mask_tokens": "octavo.ops.sampling.token_masks:mask_tokens",
        "matvec": "octavo.ops.matvec:matvec",
        "prepare_heads": "octavo.ops.heads:prepare_heads",
        "prepare_latents": "octavo.ops.latents:prepare_latents",
        "rms_norm": "octavo.ops.norm:rms_norm",
        "write_segments": "octavo.ops.step:write_segments",
    },
)
