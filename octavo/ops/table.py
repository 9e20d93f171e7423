"""Ops by name, for the common conformance tests.

matmul_invariant and sampling's choose_tokens have tests of their own: Triton's interpreter cannot multiply
bfloat16 matrices, and tokens are compared otherwise than numbers.
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
        "gated_gelu": "octavo.ops.activation:gated_gelu",
        "gated_gelu_erf": "octavo.ops.activation:gated_gelu_erf",
        "gated_silu": "octavo.ops.activation:gated_silu",
        "gather_step": "octavo.ops.step:gather_step",
        "layer_norm": "octavo.ops.layer_norm:layer_norm",
        "matvec": "octavo.ops.matvec:matvec",
        "prepare_heads": "octavo.ops.heads:prepare_heads",
        "rms_norm": "octavo.ops.norm:rms_norm",
        "write_segments": "octavo.ops.step:write_segments",
    },
)
