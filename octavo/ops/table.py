"""All ops by name, for the conformance tests and `octavo explain`."""

from __future__ import annotations

from typing import Any

from octavo.base.table import LazyTable
from octavo.ops.contract import Op

OPS: LazyTable[Op[..., Any]] = LazyTable(
    "op",
    {
        "add_rms_norm": "octavo.ops.norm:add_rms_norm",
        "append_tokens": "octavo.ops.step:append_tokens",
        "gated_silu": "octavo.ops.activation:gated_silu",
        "gather_step": "octavo.ops.step:gather_step",
        "prepare_heads": "octavo.ops.heads:prepare_heads",
        "rms_norm": "octavo.ops.norm:rms_norm",
        "write_segments": "octavo.ops.step:write_segments",
    },
)
