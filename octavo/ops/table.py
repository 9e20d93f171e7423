"""All ops by name, for the conformance tests and `octavo explain`."""

from __future__ import annotations

from typing import Any

from octavo.base.table import LazyTable
from octavo.ops.contract import Op

OPS: LazyTable[Op[Any]] = LazyTable(
    "op",
    {
        "gated_silu": "octavo.ops.activation:gated_silu",
        "rms_norm": "octavo.ops.norm:rms_norm",
        "rope": "octavo.ops.rope:rope",
    },
)
